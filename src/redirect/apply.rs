//! Handing the rules to the kernel.

use std::{
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    process::{Command, Stdio},
};

use crate::redirect::{Family, RedirectPlan, render};

/// Which tool applies the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// nftables where it works, else iptables
    Auto,
    /// `iptables-restore`, over nf_tables or legacy
    Iptables,
    /// `nft`
    Nftables,
}

/// Why the rules are not in place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot redirect traffic: this container lacks the capability NET_ADMIN; allow it for the \
         container meshwright-redirect (the pod security level of the namespace may forbid it)"
    )]
    NoNetAdmin,
    #[error(
        "cannot redirect traffic: no tool for packet rules works here; the kernel needs nf_tables \
         or ip_tables with NAT, and the image nft or iptables-restore. Tried: {0}"
    )]
    NothingWorks(String),
}

/// One attempt that failed, with the tool's own words.
#[derive(Debug, thiserror::Error)]
#[error("{program}: {reason}")]
struct Failed {
    program: &'static str,
    reason: String,
}

/// One way to apply the rules.
#[derive(Clone, Copy, Debug)]
enum Tool {
    Nft,
    /// The programs to save and restore, for each family.
    Iptables {
        v4: [&'static str; 2],
        v6: [&'static str; 2],
    },
}

const IPTABLES_NFT: Tool = Tool::Iptables {
    v4: ["iptables-nft-save", "iptables-nft-restore"],
    v6: ["ip6tables-nft-save", "ip6tables-nft-restore"],
};
const IPTABLES_LEGACY: Tool = Tool::Iptables {
    v4: ["iptables-legacy-save", "iptables-legacy-restore"],
    v6: ["ip6tables-legacy-save", "ip6tables-legacy-restore"],
};
/// Images that hold only one of the two leave out which.
const IPTABLES: Tool = Tool::Iptables {
    v4: ["iptables-save", "iptables-restore"],
    v6: ["ip6tables-save", "ip6tables-restore"],
};

impl Backend {
    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Auto => &[Tool::Nft, IPTABLES_NFT, IPTABLES_LEGACY, IPTABLES],
            Self::Iptables => &[IPTABLES_NFT, IPTABLES_LEGACY, IPTABLES],
            Self::Nftables => &[Tool::Nft],
        }
    }
}

/// The families that this network namespace has.
pub(super) fn families() -> &'static [Family] {
    // The file is missing where the kernel has no IPv6, and empty where it is switched off.
    let v6 = std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|list| !list.is_empty());
    if v6 { &Family::BOTH } else { &Family::BOTH[..1] }
}

/// Applies the plan with the first tool that works, and returns the tool's name.
///
/// A tool that fails leaves nothing behind, as each applies all of a family's rules or none: so
/// trying is the test whether it works.
pub fn apply(
    plan: &RedirectPlan,
    backend: Backend,
    families: &[Family],
) -> Result<&'static str, Error> {
    if !has_net_admin() {
        return Err(Error::NoNetAdmin);
    }
    if families.contains(&Family::V6) {
        add_v6_passthrough();
    }
    let mut tried: Vec<String> = Vec::new();
    for tool in backend.tools() {
        match tool.apply(plan, families) {
            Ok(name) => return Ok(name),
            Err(failed) => tried.push(failed.to_string()),
        }
    }
    Err(Error::NothingWorks(tried.join("; ")))
}

/// The text that would be applied, for `--dry-run`.
pub(super) fn preview(plan: &RedirectPlan, backend: Backend, families: &[Family]) -> String {
    let mut text = String::new();
    match backend {
        Backend::Auto | Backend::Nftables => text.push_str(&render::nftables(plan, families)),
        Backend::Iptables => {
            for family in families {
                let program = if *family == Family::V4 { "iptables" } else { "ip6tables" };
                // Writing to a String cannot fail.
                let _ = writeln!(text, "# {program}-restore --noflush");
                text.push_str(&render::iptables(plan, *family, ""));
            }
        }
    }
    text
}

impl Tool {
    fn apply(self, plan: &RedirectPlan, families: &[Family]) -> Result<&'static str, Failed> {
        match self {
            Self::Nft => {
                run("nft", &["-f", "-"], &render::nftables(plan, families))?;
                Ok("nft")
            }
            Self::Iptables { v4, v6 } => {
                for family in families {
                    let [save, restore] = if *family == Family::V4 { v4 } else { v6 };
                    let saved = run(save, &["-t", "nat"], "")?;
                    run(restore, &["--noflush"], &render::iptables(plan, *family, &saved))?;
                }
                Ok(v4[1])
            }
        }
    }
}

/// Runs a tool to its end, and returns what it printed.
fn run(program: &'static str, args: &[&str], input: &str) -> Result<String, Failed> {
    let failed = |reason: String| Failed { program, reason };
    let io_failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => failed("not in this image".to_owned()),
        _ => failed(error.to_string()),
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it has read everything says why on standard error.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(io_failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(
        said.split('\n')
            .map(str::trim)
            .find(|s| !s.is_empty())
            .map_or_else(|| output.status.to_string(), str::to_owned),
    ))
}

/// 127.0.0.0/8 is all loopback, but of ::/8 only ::1: the proxy's other address has to be added.
fn add_v6_passthrough() {
    let present = std::fs::read_to_string("/proc/net/if_inet6")
        .is_ok_and(|list| list.lines().any(|line| line.starts_with(PASSTHROUGH_V6)));
    if present {
        return;
    }
    if let Err(error) = run("ip", &["-6", "address", "add", "::6/128", "dev", "lo"], "") {
        // In a pod without an IPv6 address of its own nobody will miss it.
        tracing::warn!(%error, "cannot give ::6 to the loopback interface: the proxy will not reach an application over IPv6");
    }
}

/// `::6` as /proc/net/if_inet6 writes it.
const PASSTHROUGH_V6: &str = "00000000000000000000000000000006";

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

    #[test]
    fn a_failing_tool_is_quoted() {
        let missing = run("meshwright-no-such-tool", &[], "").unwrap_err();
        assert_eq!(missing.to_string(), "meshwright-no-such-tool: not in this image");
        let failing = run("sh", &["-c", "echo 'no way' >&2; exit 3"], "").unwrap_err();
        assert_eq!(failing.to_string(), "sh: no way");
    }
}
