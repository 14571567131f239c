//! Why rules that are in place may not redirect: whose other rules there are.

use super::{Seen, Target, is_ours};
use crate::redirect::{Family, command::run};

/// The likely cause, in a sentence without its period.
pub(super) fn hint(target: &Target, seen: &Seen) -> String {
    let rules = run("nft", &["-s", "list", "ruleset"], "").unwrap_or_default();
    let legacy = match target.family {
        Family::V4 => "iptables-legacy-save",
        Family::V6 => "ip6tables-legacy-save",
    };
    let legacy = run(legacy, &[], "").unwrap_or_default();
    explain(seen, &foreign_chains(&rules), &foreign_rules(&legacy), untracked(&rules, &legacy))
}

fn explain(seen: &Seen, chains: &[String], rules: &[String], untracked: bool) -> String {
    if untracked {
        return "Rules of another tool switch off connection tracking (notrack), without which no \
                address is translated"
            .to_owned();
    }
    if let Seen::Failed(_) = seen {
        return "It ended before any rule saw it".to_owned();
    }
    let others: Vec<&str> = chains.iter().chain(rules).map(String::as_str).collect();
    if others.is_empty() {
        return "No other tool has rules here that could do it; the kernel may lack the module for \
                REDIRECT (nft_redir or xt_REDIRECT) or connection tracking (nf_conntrack)"
            .to_owned();
    }
    format!("Probably rules of another tool come first: {}", others.join(", "))
}

/// Chains of others that see what a process of the pod sends, or what comes to it by loopback, and
/// that do something about it.
fn foreign_chains(rules: &str) -> Vec<String> {
    let (mut table, mut chain, mut sees) = ("", "", false);
    let mut found: Vec<String> = Vec::new();
    for line in rules.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            (chain, sees) = (name.trim_end_matches(" {"), false);
        } else if line.starts_with("type ") {
            sees = !is_ours(table) && sees_it(line);
            if sees && line.contains("policy drop") {
                found.push(format!("table {table}, chain {chain}"));
            }
        } else if sees && !is_ours(line) && !["", "}"].contains(&line) {
            found.push(format!("table {table}, chain {chain}"));
        }
    }
    found.dedup();
    found
}

fn sees_it(line: &str) -> bool {
    ["hook output", "hook postrouting", "hook prerouting", "hook input"]
        .iter()
        .any(|hook| line.contains(hook))
}

/// Rules of others in the chains of legacy iptables where the kernel begins.
fn foreign_rules(saved: &str) -> Vec<String> {
    let begins = ["-A OUTPUT ", "-A POSTROUTING ", "-A PREROUTING ", "-A INPUT "];
    let rules = saved.lines().filter(|line| begins.iter().any(|chain| line.starts_with(chain)));
    rules.filter(|line| !is_ours(line)).map(|line| format!("`{line}`")).collect()
}

fn untracked(rules: &str, legacy: &str) -> bool {
    let says = |text: &str| text.lines().any(|line| line.trim_end().ends_with("notrack"));
    says(rules) || says(legacy) || legacy.contains("-j NOTRACK")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULESET: &str = "table ip meshwright {\n\tchain nat_output {\n\t\ttype nat hook output \
                           priority -100; policy accept;\n\t}\n}\ntable inet guard {\n\tchain out {\n\
                           \t\ttype filter hook output priority 0; policy drop;\n\t}\n\tchain fwd {\n\
                           \t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n";

    #[test]
    fn names_the_rules_of_others() {
        let hint = explain(&Seen::NoAnswer, &foreign_chains(RULESET), &[], false);
        assert!(hint.ends_with("table inet guard, chain out"), "{hint}");
        let saved = "*nat\n-A OUTPUT -p tcp -j MESHWRIGHT_OUTPUT\n-A OUTPUT -p tcp -j DNAT\n";
        assert_eq!(foreign_rules(saved), ["`-A OUTPUT -p tcp -j DNAT`"]);
    }

    #[test]
    fn names_what_the_kernel_may_lack() {
        let hint = explain(&Seen::Refused, &[], &[], false);
        assert!(hint.contains("nf_conntrack"), "{hint}");
        assert!(untracked("\t\tip protocol tcp notrack\n", ""));
    }
}
