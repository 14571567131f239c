//! What to try: connections that the rules themselves say are redirected. So a plan that captures
//! little, or somebody whom it does not capture, raises no false alarm.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Target, What};
use crate::redirect::{
    Capture, Cidr, Connection, Dns, Family, Protocol, RedirectPlan, Ruleset,
    command::run,
    destination,
    plan::{DNS_PORT, PROBE_PORT},
    rules,
};

/// Whose connections ours are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
}

impl User {
    pub(super) fn own() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // Real, effective, saved, and the one that files and sockets get.
        let last = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().nth(3)?.parse().ok()
        };
        Self { uid: last("Uid:").unwrap_or(0), gid: last("Gid:").unwrap_or(0) }
    }
}

/// How packets to an address leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub interface: String,
    pub source: IpAddr,
}

/// The kernel's way to an address, if there is one.
pub(super) fn route(to: IpAddr) -> Option<Route> {
    let text = run("ip", &["-o", "route", "get", &to.to_string()], "").ok()?;
    parse_route(&text)
}

fn parse_route(text: &str) -> Option<Route> {
    let after = |word: &str| {
        let mut words = text.split_whitespace().skip_while(|one| *one != word);
        words.nth(1)
    };
    Some(Route { interface: after("dev")?.to_owned(), source: after("src")?.parse().ok()? })
}

/// The connection that the rules redirect whoever begins it.
pub(super) fn anybodys(plan: &RedirectPlan, family: Family) -> Target {
    let address = SocketAddr::new(family.passthrough().address, PROBE_PORT);
    Target { family, what: What::Outbound, address, arrives: plan.proxy_port }
}

/// What `user` can try, given the way to each address.
pub fn targets(
    plan: &RedirectPlan,
    families: &[Family],
    user: User,
    route: impl Fn(IpAddr) -> Option<Route>,
) -> Vec<Target> {
    let mut targets = Vec::new();
    for family in families.iter().copied() {
        let search = Search { rules: rules(plan, family), family, user, route: &route };
        let arrives = plan.proxy_port;
        let outbound =
            search.first(What::Outbound, arrives, &addresses(plan, family), &ports(plan));
        targets.push(outbound.unwrap_or_else(|| anybodys(plan, family)));
        // From the proxy's own user, who calls its own pod.
        let own = [family.passthrough().address];
        targets.extend(search.first(What::Inbound, plan.inbound_port, &own, &UNUSED));
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let servers = dns_servers(plan, family);
            targets.extend(search.first(What::Dns(protocol), DNS_PORT, &servers, &[53]));
        }
    }
    targets
}

/// Ports that hardly anybody listens on, should a connection get there after all.
const UNUSED: [u16; 3] = [65_479, 65_481, 65_483];

struct Search<'a, R> {
    rules: Ruleset,
    family: Family,
    user: User,
    route: &'a R,
}

impl<R: Fn(IpAddr) -> Option<Route>> Search<'_, R> {
    /// The first of these addresses and ports that the rules send where it must arrive.
    fn first(
        &self,
        what: What,
        arrives: u16,
        addresses: &[IpAddr],
        ports: &[u16],
    ) -> Option<Target> {
        addresses.iter().find_map(|address| {
            let route = (self.route)(*address)?;
            let port = ports.iter().find(|port| {
                let connection = Connection {
                    protocol: if let What::Dns(protocol) = what { protocol } else { Protocol::Tcp },
                    interface: &route.interface,
                    source: route.source,
                    destination: SocketAddr::new(*address, **port),
                    uid: self.user.uid,
                    gid: self.user.gid,
                };
                destination(&self.rules, &connection) == Some(arrives)
            })?;
            let address = SocketAddr::new(*address, *port);
            Some(Target { family: self.family, what, address, arrives })
        })
    }
}

fn ports(plan: &RedirectPlan) -> Vec<u16> {
    UNUSED.into_iter().chain(plan.outbound_ports.iter().copied()).collect()
}

/// Addresses of documentation, which nobody has; then some of the ranges to capture.
fn addresses(plan: &RedirectPlan, family: Family) -> Vec<IpAddr> {
    let mut addresses = nobodys(family);
    if let Capture::Only(cidrs) = &plan.outbound_cidrs {
        addresses.extend(cidrs.iter().filter(|cidr| family.holds(cidr)).map(|c| inside(*c)));
    }
    addresses
}

fn nobodys(family: Family) -> Vec<IpAddr> {
    match family {
        Family::V4 => {
            [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]].map(IpAddr::from).to_vec()
        }
        Family::V6 => [[0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [0x3fff, 0, 0, 0, 0, 0, 0, 1_u16]]
            .map(IpAddr::from)
            .to_vec(),
    }
}

/// An address near the end of the range, where few are in use.
fn inside(cidr: Cidr) -> IpAddr {
    match cidr.address {
        IpAddr::V4(address) => {
            let hosts = u32::MAX.checked_shr(cidr.prefix.into()).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() | hosts.saturating_sub(1)).into()
        }
        IpAddr::V6(address) => {
            let hosts = u128::MAX.checked_shr(cidr.prefix.into()).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() | hosts.saturating_sub(1)).into()
        }
    }
}

fn dns_servers(plan: &RedirectPlan, family: Family) -> Vec<IpAddr> {
    match &plan.dns {
        Dns::Off => Vec::new(),
        Dns::All => nobodys(family),
        Dns::Servers(servers) => servers
            .iter()
            .filter(|server| server.is_ipv4() == (family == Family::V4))
            .copied()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redirect::plan_of_args;

    const APP: User = User { uid: 1000, gid: 1000 };
    const PROXY: User = User { uid: 1337, gid: 1337 };

    #[allow(clippy::unnecessary_wraps, reason = "other ways are none")]
    fn out(to: IpAddr) -> Option<Route> {
        let interface =
            if to.is_loopback() || to == Family::V4.passthrough().address { "lo" } else { "eth0" };
        Some(Route { interface: interface.to_owned(), source: "10.0.0.7".parse().unwrap() })
    }

    fn told(flags: &[&str], user: User, route: fn(IpAddr) -> Option<Route>) -> Vec<String> {
        let flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        let (plan, _) = plan_of_args(&flags).unwrap();
        let targets = targets(&plan, &[Family::V4], user, route);
        targets.iter().map(|target| format!("{target} → {}", target.arrives)).collect()
    }

    #[test]
    fn the_application_tries_an_address_that_nobody_has() {
        assert_eq!(told(&[], APP, out), ["an outbound IPv4 connection to 192.0.2.1:65479 → 15001"]);
    }

    #[test]
    fn what_is_tried_is_captured() {
        for (flags, address) in [
            (&["--exclude-outbound-cidrs=192.0.2.0/24"][..], "198.51.100.1:65479"),
            (&["--outbound-cidrs=10.96.0.0/12"], "10.111.255.254:65479"),
            (
                &["--outbound-cidrs=10.96.0.1/32", "--exclude-outbound-ports=65479"],
                "10.96.0.1:65481",
            ),
            (&["--outbound-cidrs=", "--outbound-ports=9999"], "192.0.2.1:9999"),
        ] {
            let told = told(flags, APP, out);
            assert!(told[0].contains(&format!("to {address} ")), "{flags:?}: {told:?}");
        }
    }

    #[test]
    fn where_nothing_of_ours_is_captured_the_way_for_anybody_is_tried() {
        let anybodys = ["an outbound IPv4 connection to 127.0.0.6:15002 → 15001"];
        for flags in [
            ["--outbound-cidrs="],
            ["--outbound-uids=7"],
            ["--exclude-interfaces=eth0"],
            ["--interfaces=net1"],
        ] {
            assert_eq!(told(&flags, APP, out), anybodys, "{flags:?}");
        }
        assert_eq!(told(&[], APP, |_| None), anybodys, "no way leads out");
    }

    #[test]
    fn the_proxys_user_proves_the_way_in() {
        assert_eq!(
            told(&[], PROXY, out),
            [
                "an outbound IPv4 connection to 127.0.0.6:15002 → 15001",
                "an inbound IPv4 connection to 127.0.0.6:65479 → 15006",
            ]
        );
    }

    #[test]
    fn dns_is_tried_where_it_is_captured() {
        let all = told(&["--dns=all"], APP, out);
        assert_eq!(all[1], "a DNS question over IPv4 to 192.0.2.1:53 → 15053");
        assert_eq!(all[2], "a DNS connection over IPv4 to 192.0.2.1:53 → 15053");
        assert_eq!(told(&["--dns=all", "--exclude-outbound-ports=53"], APP, out).len(), 1);
    }

    #[test]
    fn reads_routes() {
        let text = "192.0.2.1 via 10.77.0.2 dev eth0 src 10.77.0.1 uid 0 \\    cache \n";
        let route = parse_route(text).unwrap();
        assert_eq!(
            (route.interface.as_str(), route.source.to_string()),
            ("eth0", "10.77.0.1".into())
        );
        let own = "local 127.0.0.6 dev lo table local src 127.0.0.1 uid 0 \\    cache <local> \n";
        assert_eq!(parse_route(own).unwrap().interface, "lo");
        assert_eq!(parse_route("unreachable 192.0.2.1\n"), None);
    }
}
