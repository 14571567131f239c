//! `meshwright redirect`: makes a pod's packets go through its proxy, then exits.
//!
//! What must happen is a [`RedirectPlan`], which is pure and knows no tool. It becomes [`rules`], these
//! become text for `iptables-restore` or `nft` ([`render`]), and [`apply`] hands the text over in one
//! call for each tool, so that there is never half a rule set. Running it again gives the same rules.

use std::{collections::BTreeSet, io::Write};

use anyhow::Context;

mod apply;
mod cidr;
mod plan;
pub mod render;
mod rules;

pub use apply::{Backend, apply};
pub use cidr::Cidr;
pub use plan::{Capture, RedirectPlan};
pub use rules::{Chain, Family, Hook, Match, Rule, Verdict, rules};

/// Command-line arguments of the role.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Port on which the proxy takes outbound connections
    #[arg(long, default_value_t = 15001)]
    proxy_port: u16,
    /// Port on which the proxy takes inbound connections
    #[arg(long, default_value_t = 15006)]
    inbound_port: u16,
    /// User whose connections are the proxy's own
    #[arg(long, default_value_t = 1337)]
    proxy_uid: u32,
    /// Group whose connections are the proxy's own
    #[arg(long, default_value_t = 1337)]
    proxy_gid: u32,
    /// Inbound ports to capture: '*' or a list, as 80,443; empty for none
    #[arg(long, default_value = "*", value_parser = ports)]
    inbound_ports: Capture<u16>,
    /// Inbound ports to leave alone
    #[arg(long, default_value = "", value_parser = port_list)]
    exclude_inbound_ports: BTreeSet<u16>,
    /// Outbound destinations to capture: '*' or a list of CIDRs; empty for none
    #[arg(long, default_value = "*", value_parser = cidrs)]
    outbound_cidrs: Capture<Cidr>,
    /// Outbound destinations to leave alone
    #[arg(long, default_value = "", value_parser = cidr_list)]
    exclude_outbound_cidrs: BTreeSet<Cidr>,
    /// Outbound ports to leave alone
    #[arg(long, default_value = "", value_parser = port_list)]
    exclude_outbound_ports: BTreeSet<u16>,
    /// Tool to use; auto takes the first that works
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    backend: Backend,
    /// Print the rules instead of applying them
    #[arg(long)]
    dry_run: bool,
}

/// Runs the role: apply the rules, or print them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let plan = plan(args);
    if args.dry_run {
        let text = apply::preview(&plan, args.backend, &Family::BOTH);
        return std::io::stdout().write_all(text.as_bytes()).context("cannot print the rules");
    }
    crate::runtime::logs::init();
    let families = apply::families();
    let used = apply(&plan, args.backend, families)?;
    tracing::info!(backend = used, ipv6 = families.contains(&Family::V6), "traffic is redirected");
    Ok(())
}

fn plan(args: &Args) -> RedirectPlan {
    let mut exclude_inbound_ports = args.exclude_inbound_ports.clone();
    exclude_inbound_ports.extend(plan::OWN_PORTS);
    RedirectPlan {
        proxy_port: args.proxy_port,
        inbound_port: args.inbound_port,
        proxy_uid: args.proxy_uid,
        proxy_gid: args.proxy_gid,
        inbound_ports: args.inbound_ports.clone(),
        exclude_inbound_ports,
        outbound_cidrs: args.outbound_cidrs.clone(),
        exclude_outbound_cidrs: args.exclude_outbound_cidrs.clone(),
        exclude_outbound_ports: args.exclude_outbound_ports.clone(),
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port: it must be between 1 and 65535")),
        Ok(port) => Ok(port),
    }
}

fn cidr(text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|error: cidr::InvalidCidr| error.to_string())
}

fn ports(text: &str) -> Result<Capture<u16>, String> {
    Capture::parse(text, port)
}

fn cidrs(text: &str) -> Result<Capture<Cidr>, String> {
    Capture::parse(text, cidr)
}

fn port_list(text: &str) -> Result<BTreeSet<u16>, String> {
    plan::list(text, port)
}

fn cidr_list(text: &str) -> Result<BTreeSet<Cidr>, String> {
    plan::list(text, cidr)
}

#[cfg(test)]
mod tests;
