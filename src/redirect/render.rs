//! Rules as text: for `iptables-restore --noflush` and for `nft -f -`. Pure.

use std::fmt::Write;

use crate::redirect::{Chain, Family, Hook, Match, RedirectPlan, Rule, Verdict, rules};

/// The tables that we own in nftables, one for each family.
pub const NFT_TABLE: &str = "meshwright";

/// Input for `iptables-restore --noflush` (or `ip6tables-restore`).
///
/// Naming a chain empties it, so our own chains are made anew each time. The built-in ones are not
/// ours to empty: `saved` is what `iptables-save -t nat` says, and our jumps in it are taken out
/// before they are put in again. It all takes effect with `COMMIT`, or not at all.
pub fn iptables(plan: &RedirectPlan, family: Family, saved: &str) -> String {
    let chains = rules(plan, family);
    let mut text = String::from("*nat\n");
    for chain in &chains {
        line(&mut text, format_args!(":{} - [0:0]", chain.name));
    }
    for chain in &chains {
        for rule in &chain.rules {
            line(&mut text, format_args!("-A {} {}", chain.name, iptables_rule(rule)));
        }
        if let Some(hook) = chain.hook {
            let jump = format!("{} -p tcp -j {}", iptables_hook(hook), chain.name);
            let present = saved.lines().filter(|line| line.trim() == format!("-A {jump}")).count();
            for _ in 0..present {
                line(&mut text, format_args!("-D {jump}"));
            }
            line(&mut text, format_args!("-A {jump}"));
        }
    }
    text.push_str("COMMIT\n");
    text
}

fn iptables_hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Output => "OUTPUT",
    }
}

fn iptables_rule(rule: &Rule) -> String {
    let mut words = vec!["-p tcp".to_owned()];
    words.extend(rule.when.iter().map(|condition| match condition {
        Match::Loopback => "-o lo".to_owned(),
        Match::Source(cidr) => format!("-s {cidr}"),
        Match::Destination(cidr) => format!("-d {cidr}"),
        Match::NotDestination(cidr) => format!("! -d {cidr}"),
        Match::DestinationPort(port) => format!("-m tcp --dport {port}"),
        Match::User(uid) => format!("-m owner --uid-owner {uid}"),
        Match::NotUser(uid) => format!("-m owner ! --uid-owner {uid}"),
        Match::Group(gid) => format!("-m owner --gid-owner {gid}"),
        Match::NotGroup(gid) => format!("-m owner ! --gid-owner {gid}"),
    }));
    words.push(match rule.then {
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Jump(chain) => format!("-j {chain}"),
    });
    words.join(" ")
}

/// Input for `nft -f -`, which is one transaction. Our tables are dropped and made anew; naming
/// them first makes the drop succeed where there are none.
pub fn nftables(plan: &RedirectPlan, families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        let table = format!("{} {NFT_TABLE}", nft_family(*family));
        line(&mut text, format_args!("table {table} {{}}"));
        line(&mut text, format_args!("delete table {table}"));
        line(&mut text, format_args!("table {table} {{"));
        for chain in rules(plan, *family) {
            nft_chain(&mut text, &chain, *family);
        }
        text.push_str("}\n");
    }
    text
}

fn nft_chain(text: &mut String, chain: &Chain, family: Family) {
    line(text, format_args!("\tchain {} {{", chain.name));
    if let Some(hook) = chain.hook {
        let (hook, priority) = match hook {
            Hook::Prerouting => ("prerouting", "dstnat"),
            // The name dstnat means another number in this hook.
            Hook::Output => ("output", "-100"),
        };
        line(text, format_args!("\t\ttype nat hook {hook} priority {priority}; policy accept;"));
    }
    for rule in &chain.rules {
        line(text, format_args!("\t\t{}", nft_rule(rule, family)));
    }
    text.push_str("\t}\n");
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn nft_rule(rule: &Rule, family: Family) -> String {
    let ip = nft_family(family);
    let mut words = vec!["meta l4proto tcp".to_owned()];
    words.extend(rule.when.iter().map(|condition| match condition {
        Match::Loopback => "oifname \"lo\"".to_owned(),
        Match::Source(cidr) => format!("{ip} saddr {cidr}"),
        Match::Destination(cidr) => format!("{ip} daddr {cidr}"),
        Match::NotDestination(cidr) => format!("{ip} daddr != {cidr}"),
        Match::DestinationPort(port) => format!("tcp dport {port}"),
        Match::User(uid) => format!("meta skuid {uid}"),
        Match::NotUser(uid) => format!("meta skuid != {uid}"),
        Match::Group(gid) => format!("meta skgid {gid}"),
        Match::NotGroup(gid) => format!("meta skgid != {gid}"),
    }));
    words.push(match rule.then {
        Verdict::Return => "return".to_owned(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Jump(chain) => format!("jump {chain}"),
    });
    words.join(" ")
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{content}");
}
