//! Text for `iptables-restore --noflush`, and what `iptables-save` says.

use std::collections::BTreeMap;

use super::line;
use crate::redirect::{
    Chain, Entry, Family, Hook, Match, Property, Rule, Ruleset, Table, Tracked, Verdict,
    rules::PREFIX,
};

/// What `iptables-save` lists that is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    tables: BTreeMap<Table, SavedTable>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SavedTable {
    chains: Vec<String>,
    /// Rules of the built-in chains that jump to ours, without `-A `.
    entries: Vec<String>,
    /// Rules of our chains, without `-A `.
    rules: Vec<String>,
}

impl Saved {
    /// Reads what `iptables-save` prints. Of rules in built-in chains those are ours that jump to
    /// our chains.
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.name() == name.trim());
            }
            if let Some(table) = table {
                saved.read(table, line);
            }
        }
        saved.tables.retain(|_, table| *table != SavedTable::default());
        saved
    }

    fn read(&mut self, table: Table, line: &str) {
        let table = self.tables.entry(table).or_default();
        if let Some(chain) = line.strip_prefix(':').filter(|chain| chain.starts_with(PREFIX)) {
            table.chains.extend(chain.split(' ').next().map(str::to_owned));
        } else if let Some(rule) = line.strip_prefix("-A ") {
            if rule.starts_with(PREFIX) {
                table.rules.push(rule.to_owned());
            } else if rule.contains(&format!(" -j {PREFIX}")) {
                table.entries.push(rule.to_owned());
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// What there is, a line each. A chain whose name is `but` is not told.
    pub(in crate::redirect) fn lines(&self, but: Option<&str>) -> Vec<String> {
        let mut lines = Vec::new();
        for (table, saved) in &self.tables {
            let name = table.name();
            let chains = saved.chains.iter().filter(|chain| Some(chain.as_str()) != but);
            lines.extend(chains.map(|chain| format!("{name}: :{chain}")));
            let rules = saved.entries.iter().chain(&saved.rules);
            lines.extend(rules.map(|rule| format!("{name}: -A {rule}")));
        }
        lines
    }

    pub(in crate::redirect) fn chains(&self) -> impl Iterator<Item = &str> {
        self.tables.values().flat_map(|table| table.chains.iter().map(String::as_str))
    }
}

/// Input for `iptables-restore --noflush` (or `ip6tables-restore`).
///
/// Naming a chain empties it, so our own chains are made anew each time. The built-in ones are not
/// ours to empty: of what is `saved` there, our jumps are taken out before they are put in again.
/// Each table takes effect with its `COMMIT`, or not at all; the last, `nat`, is the one that captures.
pub fn iptables(rules: &Ruleset, saved: &Saved) -> String {
    let mut text = String::new();
    for table in Table::ALL {
        let old = saved.tables.get(&table);
        let chains: Vec<&Chain> = rules.chains.iter().filter(|c| c.table == table).collect();
        if old.is_none() && chains.is_empty() {
            continue;
        }
        line!(text, "*{}", table.name());
        for chain in &chains {
            line!(text, ":{} - [0:0]", chain.name);
        }
        let entries = rules.entries.iter().filter(|entry| entry.table == table);
        replace(&mut text, |name| chains.iter().any(|chain| chain.name == name), old);
        for chain in &chains {
            for one in &chain.rules {
                line!(text, "-A {}{}", chain.name, rule(one));
            }
        }
        for entry in entries {
            line!(text, "-A {}", entered(entry));
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Takes out the old jumps, and the chains that are not `wanted` any more.
fn replace(text: &mut String, wanted: impl Fn(&str) -> bool, old: Option<&SavedTable>) {
    let Some(old) = old else { return };
    let gone: Vec<&String> = old.chains.iter().filter(|name| !wanted(name)).collect();
    for name in &gone {
        line!(text, ":{name} - [0:0]");
    }
    for entry in &old.entries {
        line!(text, "-D {entry}");
    }
    for name in &gone {
        line!(text, "-X {name}");
    }
}

/// Makes of what there is `now` what there was `before`.
pub(in crate::redirect) fn back(before: &Saved, now: &Saved) -> String {
    let mut text = String::new();
    let nothing = SavedTable::default();
    for table in Table::ALL {
        let (old, new) = (before.tables.get(&table), now.tables.get(&table));
        if old.is_none() && new.is_none() {
            continue;
        }
        let old = old.unwrap_or(&nothing);
        line!(text, "*{}", table.name());
        for chain in &old.chains {
            line!(text, ":{chain} - [0:0]");
        }
        replace(&mut text, |name| old.chains.iter().any(|chain| chain == name), new);
        for rule in old.rules.iter().chain(&old.entries) {
            line!(text, "-A {rule}");
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Takes all of ours away.
pub(in crate::redirect) fn without(saved: &Saved) -> String {
    iptables(&Ruleset::default(), saved)
}

/// Adds an empty chain with this name.
pub(in crate::redirect) fn remember(chain: &str) -> String {
    format!("*nat\n:{chain} - [0:0]\nCOMMIT\n")
}

/// The name of the tool for a family, before its suffixes.
pub(in crate::redirect) fn program(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

fn entered(entry: &Entry) -> String {
    let chain = match entry.hook {
        Hook::Prerouting => "PREROUTING",
        Hook::Output => "OUTPUT",
    };
    format!("{chain}{}", rule(&entry.rule))
}

fn rule(rule: &Rule) -> String {
    let mut text = String::new();
    let protocol = rule.protocol.iter().map(|protocol| format!("-p {}", protocol.name()));
    let conditions = rule.when.iter().map(condition);
    for words in protocol.chain(conditions).chain([target(rule.then)]) {
        text.push(' ');
        text.push_str(&words);
    }
    text
}

fn condition(condition: &Match) -> String {
    let (property, not) = match condition {
        Match::Is(property) => (property, ""),
        Match::Not(property) => (property, "! "),
    };
    let with = |module: &str, flag: &str, value: &dyn std::fmt::Display| {
        let module = if module.is_empty() { String::new() } else { format!("-m {module} ") };
        format!("{module}{not}{flag} {value}")
    };
    match property {
        Property::In(interface) => with("", "-i", interface),
        Property::Out(interface) => with("", "-o", interface),
        Property::Source(cidr) => with("", "-s", cidr),
        Property::Destination(cidr) => with("", "-d", cidr),
        Property::SourcePort(port) => with("", "--sport", port),
        Property::DestinationPort(port) => with("", "--dport", port),
        Property::User(uid) => with("owner", "--uid-owner", uid),
        Property::Group(gid) => with("owner", "--gid-owner", gid),
        Property::Mark(mark) => with("mark", "--mark", mark),
        Property::ConnectionMark(mark) => with("connmark", "--mark", mark),
        Property::Tracked(Tracked::Known) => with("conntrack", "--ctstate", &"RELATED,ESTABLISHED"),
        Property::Tracked(Tracked::Invalid) => with("conntrack", "--ctstate", &"INVALID"),
    }
}

fn target(verdict: Verdict) -> String {
    match verdict {
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Accept => "-j ACCEPT".to_owned(),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        Verdict::Jump(chain) => format!("-j {chain}"),
        Verdict::SetMark(mark) => format!("-j MARK --set-mark {mark}"),
        Verdict::SaveMark => "-j CONNMARK --save-mark".to_owned(),
        Verdict::RestoreMark => "-j CONNMARK --restore-mark".to_owned(),
        Verdict::Tproxy { port, mark } => {
            format!("-j TPROXY --on-port {port} --tproxy-mark {mark}")
        }
        Verdict::Zone(zone) => format!("-j CT --zone {zone}"),
    }
}
