//! The role's command line, and the plan that it means.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use clap::Parser;

use crate::redirect::{
    Backend, Capture, Cidr, Dns, Interface, Mode, RedirectPlan,
    cidr::InvalidCidr,
    plan::{self, InvalidInterface},
};

/// Command-line arguments of the role. Lists have commas; an empty list is none.
#[derive(Debug, Clone, clap::Args)]
#[command(args_override_self = true)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// How inbound connections come to the proxy
    #[arg(long, value_enum, default_value_t = Mode::Redirect)]
    mode: Mode,
    /// Port on which the proxy takes outbound connections
    #[arg(long, default_value = "15001", value_parser = port)]
    proxy_port: u16,
    /// Port on which the proxy takes inbound connections
    #[arg(long, default_value = "15006", value_parser = port)]
    inbound_port: u16,
    /// User whose connections are the proxy's own
    #[arg(long, default_value_t = 1337)]
    proxy_uid: u32,
    /// Group whose connections are the proxy's own
    #[arg(long, default_value_t = 1337)]
    proxy_gid: u32,
    /// Inbound ports to capture: '*' or a list, as 80,443
    #[arg(long, default_value = "*", value_parser = ports)]
    inbound_ports: Capture<u16>,
    /// Inbound ports to leave alone
    #[arg(long, default_value = "", value_parser = port_list)]
    exclude_inbound_ports: BTreeSet<u16>,
    /// Outbound destinations to capture: '*' or a list of CIDRs
    #[arg(long, default_value = "*", value_parser = cidrs)]
    outbound_cidrs: Capture<Cidr>,
    /// Outbound destinations to leave alone
    #[arg(long, default_value = "", value_parser = cidr_list)]
    exclude_outbound_cidrs: BTreeSet<Cidr>,
    /// Outbound ports to capture even where the destination is not
    #[arg(long, default_value = "", value_parser = port_list)]
    outbound_ports: BTreeSet<u16>,
    /// Outbound ports to leave alone
    #[arg(long, default_value = "", value_parser = port_list)]
    exclude_outbound_ports: BTreeSet<u16>,
    /// Network interfaces to capture, either way: '*' or a list; tap+ is all that begin with tap
    #[arg(long, default_value = "*", value_parser = interfaces)]
    interfaces: Capture<Interface>,
    /// Network interfaces to leave alone
    #[arg(long, default_value = "", value_parser = interface_list)]
    exclude_interfaces: BTreeSet<Interface>,
    /// Network interfaces of virtual machines: what comes in by them is outbound
    #[arg(long, default_value = "", value_parser = interface_list)]
    reroute_interfaces: BTreeSet<Interface>,
    /// Users of the application to capture: '*' or a list of numbers
    #[arg(long, default_value = "*", value_parser = ids)]
    outbound_uids: Capture<u32>,
    /// Users of the application to leave alone
    #[arg(long, default_value = "", value_parser = id_list)]
    exclude_outbound_uids: BTreeSet<u32>,
    /// Groups of the application to capture: '*' or a list of numbers
    #[arg(long, default_value = "*", value_parser = ids)]
    outbound_gids: Capture<u32>,
    /// Groups of the application to leave alone
    #[arg(long, default_value = "", value_parser = id_list)]
    exclude_outbound_gids: BTreeSet<u32>,
    /// Which DNS questions the agent answers
    #[arg(long, value_enum, default_value_t = DnsArg::Off)]
    dns: DnsArg,
    /// Drop packets of no known connection, which otherwise may reset connections under load
    #[arg(long)]
    drop_invalid: bool,
    /// Tool to use; auto takes the first that works
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub(super) backend: Backend,
    /// Print the rules instead of applying them
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not prove with a connection that the rules work
    #[arg(long)]
    pub(super) no_probe: bool,
    /// Apply nothing; wait until somebody else's rules redirect
    #[arg(long, conflicts_with_all = ["remove", "dry_run"])]
    pub(super) check: bool,
    /// How long --check waits
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    check_timeout: u64,
    /// Take the rules away
    #[arg(long)]
    pub(super) remove: bool,
}

/// Which DNS questions the agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DnsArg {
    Off,
    /// Those for the servers in /etc/resolv.conf
    Resolvers,
    All,
}

/// A list of arguments alone, as it stands in a pod's annotation.
#[derive(Debug, Parser)]
#[command(name = "redirect", no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    args: Args,
}

/// What a list of the role's arguments means to somebody outside of the pod, such as the CNI
/// plugin's daemon. The pod's resolv.conf is not known there, so `--dns=resolvers` is as `all`.
pub fn plan_of_args(args: &[String]) -> Result<(RedirectPlan, Backend), String> {
    let args = parse(args)?;
    Ok((args.plan(None), args.backend))
}

/// The flag to add to the arguments of a pod whose rules somebody outside of it writes, where they speak
/// of the pod's DNS servers, which are not known there: the last of repeated flags holds.
pub fn dns_of_another_pod(args: &[String]) -> Option<&'static str> {
    parse(args).is_ok_and(|args| args.needs_resolvers()).then_some("--dns=all")
}

fn parse(args: &[String]) -> Result<Args, String> {
    match Alone::try_parse_from(args) {
        Ok(alone) => Ok(alone.args),
        Err(error) => {
            let text = error.render().to_string();
            // What follows is the usage, for people at a terminal.
            let first = text.split("\n\n").next().unwrap_or_default();
            Err(first.trim_start_matches("error: ").trim().to_owned())
        }
    }
}

impl Args {
    /// The plan; `resolvers` are the DNS servers of the pod, if they are known.
    pub fn plan(&self, resolvers: Option<BTreeSet<IpAddr>>) -> RedirectPlan {
        let args = self.clone();
        let mut exclude_inbound_ports = args.exclude_inbound_ports;
        exclude_inbound_ports.extend(plan::OWN_PORTS);
        RedirectPlan {
            mode: args.mode,
            proxy_port: args.proxy_port,
            inbound_port: args.inbound_port,
            proxy_uid: args.proxy_uid,
            proxy_gid: args.proxy_gid,
            inbound_ports: args.inbound_ports,
            exclude_inbound_ports,
            outbound_cidrs: args.outbound_cidrs,
            exclude_outbound_cidrs: args.exclude_outbound_cidrs,
            outbound_ports: args.outbound_ports,
            exclude_outbound_ports: args.exclude_outbound_ports,
            interfaces: args.interfaces,
            exclude_interfaces: args.exclude_interfaces,
            reroute_interfaces: args.reroute_interfaces,
            outbound_uids: args.outbound_uids,
            exclude_outbound_uids: args.exclude_outbound_uids,
            outbound_gids: args.outbound_gids,
            exclude_outbound_gids: args.exclude_outbound_gids,
            dns: match (args.dns, resolvers) {
                (DnsArg::Off, _) => Dns::Off,
                (DnsArg::Resolvers, Some(servers)) => Dns::Servers(servers),
                (DnsArg::Resolvers, None) | (DnsArg::All, _) => Dns::All,
            },
            drop_invalid: args.drop_invalid,
        }
    }

    pub(super) fn check_timeout(&self) -> Duration {
        Duration::from_secs(self.check_timeout)
    }

    /// Whether the pod's /etc/resolv.conf says what is captured.
    pub(super) fn needs_resolvers(&self) -> bool {
        self.dns == DnsArg::Resolvers
    }
}

/// The servers that a resolv.conf names.
pub(super) fn nameservers(resolv_conf: &str) -> BTreeSet<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        // A link-local server has its interface behind it, which no rule takes.
        address.split('%').next()?.parse().ok()
    };
    resolv_conf.lines().filter_map(server).collect()
}

fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port: it must be between 1 and 65535")),
        Ok(port) => Ok(port),
    }
}

fn id(text: &str) -> Result<u32, String> {
    // The greatest number means nobody.
    match text.trim().parse() {
        Ok(u32::MAX) | Err(_) => {
            Err(format!("{text:?} is not the number of a user or group, such as 1000"))
        }
        Ok(id) => Ok(id),
    }
}

fn cidr(text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|error: InvalidCidr| error.to_string())
}

fn interface(text: &str) -> Result<Interface, String> {
    text.parse().map_err(|error: InvalidInterface| error.to_string())
}

fn ports(text: &str) -> Result<Capture<u16>, String> {
    Capture::parse(text, port)
}

fn cidrs(text: &str) -> Result<Capture<Cidr>, String> {
    Capture::parse(text, cidr)
}

fn interfaces(text: &str) -> Result<Capture<Interface>, String> {
    Capture::parse(text, interface)
}

fn ids(text: &str) -> Result<Capture<u32>, String> {
    Capture::parse(text, id)
}

fn port_list(text: &str) -> Result<BTreeSet<u16>, String> {
    plan::list(text, port)
}

fn cidr_list(text: &str) -> Result<BTreeSet<Cidr>, String> {
    plan::list(text, cidr)
}

fn interface_list(text: &str) -> Result<BTreeSet<Interface>, String> {
    plan::list(text, interface)
}

fn id_list(text: &str) -> Result<BTreeSet<u32>, String> {
    plan::list(text, id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flags: &[&str]) -> Result<RedirectPlan, String> {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        plan_of_args(&flags).map(|(plan, _)| plan)
    }

    #[test]
    fn no_flags_mean_the_default_plan() {
        assert_eq!(plan(&[]).unwrap(), RedirectPlan::default());
    }

    #[test]
    fn an_empty_list_is_none() {
        let plan = plan(&["--inbound-ports=", "--outbound-cidrs=", "--outbound-uids="]).unwrap();
        assert_eq!(plan.inbound_ports, Capture::Only(BTreeSet::new()));
        assert_eq!(plan.outbound_cidrs, Capture::Only(BTreeSet::new()));
        assert_eq!(plan.outbound_uids, Capture::Only(BTreeSet::new()));
    }

    #[test]
    fn the_proxys_own_ports_are_always_left_alone() {
        let plan = plan(&["--exclude-inbound-ports=9000"]).unwrap();
        assert_eq!(plan.exclude_inbound_ports, [9000, 15020, 15021, 15090].into());
    }

    #[test]
    fn bad_values_name_the_flag_the_value_and_the_form() {
        for (flag, value, form) in [
            ("--inbound-ports", "80,http", "between 1 and 65535"),
            ("--exclude-inbound-ports", "0", "between 1 and 65535"),
            ("--outbound-ports", "70000", "between 1 and 65535"),
            ("--outbound-cidrs", "10.0.0.0/33", "such as 10.0.0.0/8"),
            ("--exclude-outbound-cidrs", "somewhere", "such as 10.0.0.0/8"),
            ("--interfaces", "eth0,a b", "such as eth1"),
            ("--reroute-interfaces", "\"", "such as eth1"),
            ("--outbound-uids", "root", "such as 1000"),
            ("--exclude-outbound-gids", "-1", "such as 1000"),
            ("--dns", "some", "resolvers"),
            ("--mode", "none", "tproxy"),
        ] {
            let error = plan(&[&format!("{flag}={value}")]).unwrap_err();
            let last = value.split(',').next_back().unwrap();
            let last = last.trim_matches('"');
            assert!([flag, last, form].iter().all(|part| error.contains(part)), "{error}");
            assert!(!error.contains("Usage"), "{error}");
        }
    }

    #[test]
    fn the_last_of_repeated_flags_holds() {
        let plan = plan(&["--dns=resolvers", "--dns=off"]).unwrap();
        assert_eq!(plan.dns, Dns::Off);
    }

    #[test]
    fn the_resolvers_of_somebody_outside_are_not_the_pods() {
        let of = |flags: &[&str]| {
            dns_of_another_pod(&flags.iter().map(|&flag| flag.to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&["--dns=resolvers"]), Some("--dns=all"));
        assert_eq!(of(&["--dns", "resolvers"]), Some("--dns=all"));
        assert_eq!(of(&["--dns=off"]), None);
    }

    #[test]
    fn outside_of_the_pod_its_resolvers_are_not_known() {
        assert_eq!(plan(&["--dns=resolvers"]).unwrap().dns, Dns::All);
        let args = parse(&["--dns=resolvers".to_owned()]).unwrap();
        let servers = nameservers(
            "search shop.svc.cluster.local\nnameserver 10.96.0.10\n nameserver fd00::a # x\n\
             nameserver fe80::1%eth0\n#nameserver 1.1.1.1\nnameserver\nnameserver dns\n",
        );
        assert_eq!(servers.len(), 3, "{servers:?}");
        assert_eq!(args.plan(Some(servers.clone())).dns, Dns::Servers(servers));
    }
}
