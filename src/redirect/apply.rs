//! Making the kernel's rules what the plan says.

use crate::redirect::{
    Backend, Family, Mode, RedirectPlan, Ruleset,
    command::{Failed, run},
    render::{self, Saved},
    routing, rules,
    state::Change,
    tool::Tool,
};

/// Why the rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot redirect traffic: this container lacks the capability NET_ADMIN; allow it for the \
         container meshwright-redirect (the pod security level of the namespace may forbid it), or \
         let the CNI plugin write the rules"
    )]
    NoNetAdmin,
    #[error(
        "cannot redirect traffic: no tool for packet rules works here; the kernel needs nf_tables \
         or ip_tables with NAT, and the image nft or iptables-restore. Tried: {0}"
    )]
    NothingWorks(String),
    #[error(
        "cannot redirect traffic with transparent sockets: {0}; the kernel needs policy routing, \
         and the image ip"
    )]
    Routing(Failed),
    #[error("cannot take rules away: {0}")]
    Removal(Failed),
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The tool whose rules hold.
    pub tool: &'static str,
    /// What became of the rules of each family.
    pub changes: Vec<(Family, Change)>,
    /// Tools whose rules from an earlier run were taken away.
    pub removed: Vec<&'static str>,
    /// Whether routes had to be changed.
    pub routed: bool,
}

/// The families that this network namespace has.
pub fn families() -> &'static [Family] {
    // The file is missing where the kernel has no IPv6, and empty where it is switched off.
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|list| !list.is_empty());
    if v6 { &Family::BOTH } else { &Family::BOTH[..1] }
}

/// Applies the plan with the first tool that works. What is in place already stays.
///
/// Trying is the test whether a tool works: where it does not, what there was stays.
pub fn apply(plan: &RedirectPlan, backend: Backend, families: &[Family]) -> Result<Applied, Error> {
    if !has_net_admin() {
        return Err(Error::NoNetAdmin);
    }
    if families.contains(&Family::V6) {
        add_v6_passthrough();
    }
    // Marked packets need a way before there are any.
    let mut routed = false;
    if plan.mode == Mode::Tproxy {
        routed = routing::ensure(plan, families).map_err(Error::Routing)?;
    }
    let (tool, changes) = first_that_works(plan, backend, families)?;
    let removed = remove_others(Some(tool), families);
    if plan.mode == Mode::Redirect {
        routed = routing::ensure(plan, families).map_err(Error::Routing)?;
    }
    let changes = families.iter().copied().zip(changes).collect();
    Ok(Applied { tool: tool.name(), changes, removed, routed })
}

fn first_that_works(
    plan: &RedirectPlan,
    backend: Backend,
    families: &[Family],
) -> Result<(Tool, Vec<Change>), Error> {
    let rules = rulesets(plan, families);
    let mut tried: Vec<String> = Vec::new();
    for tool in backend.tools() {
        match tool.ensure(&rules) {
            Ok(changes) => return Ok((*tool, changes)),
            Err(failed) => tried.push(failed.to_string()),
        }
    }
    Err(Error::NothingWorks(tried.join("; ")))
}

/// Rules of two tools at once would hold both, and those of an earlier run are not the wanted ones.
fn remove_others(but: Option<Tool>, families: &[Family]) -> Vec<&'static str> {
    let others = Tool::ALL.into_iter().filter(|tool| Some(*tool) != but);
    let removed = others.filter(|tool| match tool.remove(families) {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot take away the rules of an earlier run");
            false
        }
    });
    removed.map(Tool::name).collect()
}

/// Takes all of ours away, whatever tool put it there, and says whose rules there were.
pub fn remove(families: &[Family]) -> Result<Vec<&'static str>, Error> {
    if !has_net_admin() {
        return Err(Error::NoNetAdmin);
    }
    let mut removed = Vec::new();
    for tool in Tool::ALL {
        if tool.remove(families).map_err(Error::Removal)? {
            removed.push(tool.name());
        }
    }
    for family in families {
        routing::remove(*family).map_err(Error::Removal)?;
    }
    if families.contains(&Family::V6) && has_v6_passthrough() {
        run("ip", &["-6", "address", "delete", "::6/128", "dev", "lo"], "")
            .map_err(Error::Removal)?;
    }
    Ok(removed)
}

fn rulesets(plan: &RedirectPlan, families: &[Family]) -> Vec<(Family, Ruleset)> {
    families.iter().map(|family| (*family, rules(plan, *family))).collect()
}

/// The text that would be applied, for `--dry-run`.
pub(super) fn preview(plan: &RedirectPlan, backend: Backend, families: &[Family]) -> String {
    let rules = rulesets(plan, families);
    let mut text = String::new();
    if backend != Backend::Iptables {
        text.push_str("# nft -f -\n");
        text.push_str(&render::nftables(&rules));
    }
    if backend != Backend::Nftables {
        for (family, rules) in &rules {
            for part in ["# ", render::program(*family), "-restore --noflush\n"] {
                text.push_str(part);
            }
            text.push_str(&render::iptables(rules, &Saved::default()));
        }
    }
    let mut commands = Vec::new();
    if families.contains(&Family::V6) {
        commands.push(format!("ip {}", V6_PASSTHROUGH.join(" ")));
    }
    if plan.mode == Mode::Tproxy {
        commands.extend(families.iter().flat_map(|family| routing::commands(*family)));
    }
    for command in commands {
        text.push_str(&command);
        text.push('\n');
    }
    text
}

/// 127.0.0.0/8 is all loopback, but of ::/8 only ::1: the proxy's other address has to be added.
const V6_PASSTHROUGH: [&str; 6] = ["-6", "address", "add", "::6/128", "dev", "lo"];

fn add_v6_passthrough() {
    if has_v6_passthrough() {
        return;
    }
    if let Err(error) = run("ip", &V6_PASSTHROUGH, "") {
        // In a pod without an IPv6 address of its own nobody will miss it.
        tracing::warn!(%error, "cannot give ::6 to the loopback interface: the proxy will not reach an application over IPv6");
    }
}

fn has_v6_passthrough() -> bool {
    /// `::6` as /proc/net/if_inet6 writes it.
    const ADDRESS: &str = "00000000000000000000000000000006";
    std::fs::read_to_string("/proc/net/if_inet6")
        .is_ok_and(|list| list.lines().any(|line| line.starts_with(ADDRESS)))
}

/// Does this process have the capability to change packet rules?
fn has_net_admin() -> bool {
    const CAP_NET_ADMIN: u64 = 12;
    // Where it cannot be known, the tools will say.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    capabilities(&status).is_none_or(|effective| effective >> CAP_NET_ADMIN & 1 == 1)
}

fn capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_effective_capabilities() {
        let status = "Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000003000\n";
        assert_eq!(capabilities(status), Some(0x3000));
        assert_eq!(capabilities("Name:\tx\n"), None);
    }
}
