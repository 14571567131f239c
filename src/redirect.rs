//! `meshwright redirect`: makes a pod's packets go through its proxy, then exits.
//!
//! What must happen is a [`RedirectPlan`], which is pure and knows no tool. It becomes [`rules`], these
//! become text for `iptables-restore` or `nft` ([`render`]), and [`apply`] hands the text over in one
//! call for each tool, so that there is never half a rule set. Running it again changes nothing, but
//! for what somebody else has changed meanwhile. At the end a [`probe`] shows that it works.

use std::{collections::BTreeSet, io::Write, net::IpAddr};

use anyhow::Context;

mod apply;
mod args;
mod cidr;
mod command;
mod plan;
pub mod probe;
pub mod render;
mod routing;
mod rules;
mod state;
mod tool;

pub use apply::{Applied, Error, apply, families, remove};
pub use args::{Args, dns_of_another_pod, plan_of_args};
pub use cidr::Cidr;
pub use plan::{Capture, DNS_PORT, Dns, Interface, Mode, PROBE_PORT, RedirectPlan};
pub use rules::{
    Chain, Connection, Entry, Family, Hook, Match, Property, Protocol, Rule, Ruleset, Table,
    Tracked, Verdict, destination, rules,
};
pub use state::{Change, Difference};
pub use tool::Backend;

/// Runs the role: apply the rules, take them away, wait for them, or print them.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let plan = args.plan(resolvers(args)?);
    if args.dry_run {
        let text = apply::preview(&plan, args.backend, &Family::BOTH);
        return std::io::stdout().write_all(text.as_bytes()).context("cannot print the rules");
    }
    crate::runtime::logs::init();
    if args.check {
        probe::wait(&plan, args.check_timeout())?;
        tracing::info!("traffic is redirected");
        return Ok(());
    }
    let families = families();
    if args.remove {
        let tools = remove(families)?;
        tracing::info!(?tools, "traffic is not redirected any more");
        return Ok(());
    }
    report(&apply(&plan, args.backend, families)?);
    if !args.no_probe {
        for target in probe::prove(&plan, families)? {
            tracing::info!(port = target.arrives, "{target} arrives");
        }
    }
    Ok(())
}

fn resolvers(args: &Args) -> anyhow::Result<Option<BTreeSet<IpAddr>>> {
    if !args.needs_resolvers() {
        return Ok(None);
    }
    let text = std::fs::read_to_string("/etc/resolv.conf")
        .context("cannot read /etc/resolv.conf, whose servers --dns=resolvers captures")?;
    let servers = args::nameservers(&text);
    if servers.is_empty() {
        tracing::warn!("/etc/resolv.conf names no server: no DNS question is captured");
    }
    Ok(Some(servers))
}

fn report(applied: &Applied) {
    let tool = applied.tool;
    for (family, change) in &applied.changes {
        let ipv6 = *family == Family::V6;
        match change {
            Change::None => tracing::info!(tool, ipv6, "traffic is redirected already"),
            Change::New => tracing::info!(tool, ipv6, "traffic is redirected"),
            Change::OtherPlan => {
                tracing::info!(tool, ipv6, "the rules of a run with other options are replaced");
            }
            Change::Drift(difference) => {
                tracing::warn!(tool, ipv6, %difference, "somebody had changed the rules; they are put right");
            }
        }
    }
    for other in &applied.removed {
        tracing::info!(
            tool = other,
            "the rules of an earlier run with another tool are taken away"
        );
    }
    if applied.routed {
        tracing::info!("policy routing is put right");
    }
}

#[cfg(test)]
mod tests;
