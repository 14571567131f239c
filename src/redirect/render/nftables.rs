//! Text for `nft -f -`.

use super::line;
use crate::redirect::{
    Chain, Entry, Family, Hook, Interface, Match, Property, Protocol, Rule, Ruleset, Table,
    Tracked, Verdict,
};

/// The tables that we own in nftables, one for each family.
pub const NFT_TABLE: &str = "meshwright";

/// Input for `nft -f -`, which is one transaction. Our tables are dropped and made anew; naming
/// them first makes the drop succeed where there are none.
pub fn nftables(families: &[(Family, Ruleset)]) -> String {
    let mut text = String::new();
    for (family, rules) in families {
        let table = format!("{} {NFT_TABLE}", nft_family(*family));
        text.push_str(&without(*family));
        line!(text, "table {table} {{");
        for chain in &rules.chains {
            named(&mut text, chain, *family);
        }
        for table in rules.tables() {
            for hook in Hook::ALL {
                let entries = rules.entries.iter();
                let entries = entries.filter(|e| e.table == table && e.hook == hook);
                base(&mut text, table, hook, entries, *family);
            }
        }
        text.push_str("}\n");
    }
    text
}

/// Takes all of ours away.
pub(in crate::redirect) fn without(family: Family) -> String {
    let table = format!("{} {NFT_TABLE}", nft_family(family));
    format!("table {table} {{}}\ndelete table {table}\n")
}

/// Adds an empty chain with this name.
pub(in crate::redirect) fn remember(family: Family, chain: &str) -> String {
    format!("add chain {} {NFT_TABLE} {chain}\n", nft_family(family))
}

pub(in crate::redirect) fn nft_family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn named(text: &mut String, chain: &Chain, family: Family) {
    line!(text, "\tchain {} {{", chain.name);
    for one in &chain.rules {
        line!(text, "\t\t{}", rule(one, family));
    }
    text.push_str("\t}\n");
}

/// A chain that the kernel enters by itself.
fn base<'a>(
    text: &mut String,
    table: Table,
    hook: Hook,
    entries: impl Iterator<Item = &'a Entry>,
    family: Family,
) {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return;
    }
    let hook_name = match hook {
        Hook::Prerouting => "prerouting",
        Hook::Output => "output",
    };
    let (kind, priority) = match (table, hook) {
        (Table::Raw, _) => ("filter", "raw"),
        // A packet whose mark changes is routed anew.
        (Table::Mangle, Hook::Output) => ("route", "mangle"),
        (Table::Mangle, Hook::Prerouting) => ("filter", "mangle"),
        (Table::Nat, Hook::Prerouting) => ("nat", "dstnat"),
        // The name dstnat means another number in this hook.
        (Table::Nat, Hook::Output) => ("nat", "-100"),
    };
    line!(text, "\tchain {}_{hook_name} {{", table.name());
    line!(text, "\t\ttype {kind} hook {hook_name} priority {priority}; policy accept;");
    for entry in entries {
        line!(text, "\t\t{}", rule(&entry.rule, family));
    }
    text.push_str("\t}\n");
}

fn rule(rule: &Rule, family: Family) -> String {
    let mut words = Vec::new();
    if let Some(protocol) = rule.protocol {
        words.push(format!("meta l4proto {}", protocol.name()));
    }
    words.extend(rule.when.iter().map(|one| condition(one, rule.protocol, family)));
    words.push(verdict(rule.then));
    words.join(" ")
}

fn condition(condition: &Match, protocol: Option<Protocol>, family: Family) -> String {
    let (property, not) = match condition {
        Match::Is(property) => (property, ""),
        Match::Not(property) => (property, "!= "),
    };
    let ip = nft_family(family);
    let transport = protocol.map_or("th", Protocol::name);
    match property {
        Property::In(interface) => format!("iifname {not}{}", quoted(interface)),
        Property::Out(interface) => format!("oifname {not}{}", quoted(interface)),
        Property::Source(cidr) => format!("{ip} saddr {not}{cidr}"),
        Property::Destination(cidr) => format!("{ip} daddr {not}{cidr}"),
        Property::SourcePort(port) => format!("{transport} sport {not}{port}"),
        Property::DestinationPort(port) => format!("{transport} dport {not}{port}"),
        Property::User(uid) => format!("meta skuid {not}{uid}"),
        Property::Group(gid) => format!("meta skgid {not}{gid}"),
        Property::Mark(mark) => format!("meta mark {not}{mark}"),
        Property::ConnectionMark(mark) => format!("ct mark {not}{mark}"),
        Property::Tracked(Tracked::Known) => format!("ct state {not}established,related"),
        Property::Tracked(Tracked::Invalid) => format!("ct state {not}invalid"),
    }
}

fn quoted(interface: &Interface) -> String {
    match interface.prefix() {
        Some(prefix) => format!("\"{prefix}*\""),
        None => format!("\"{interface}\""),
    }
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Accept => "accept".to_owned(),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::SetMark(mark) => format!("meta mark set {mark}"),
        Verdict::SaveMark => "ct mark set meta mark".to_owned(),
        Verdict::RestoreMark => "meta mark set ct mark".to_owned(),
        Verdict::Tproxy { port, mark } => {
            format!("tproxy to :{port} meta mark set {mark} accept")
        }
        Verdict::Zone(zone) => format!("ct zone set {zone}"),
    }
}
