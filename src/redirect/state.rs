//! What is in place, and whether that is what was put there. Pure.
//!
//! Tools print rules in words of their own, which differ from version to version, so what is wanted
//! cannot be compared with what they list. Instead each run that puts rules in place asks for the list
//! afterwards, and leaves an empty chain whose name is a hash of what was wanted and of the list. The
//! next run wants the same and finds the same list, or knows that somebody changed the rules.

use std::{collections::BTreeMap, fmt};

use xxhash_rust::xxh3::xxh3_64;

use crate::redirect::{render::Saved, rules::PREFIX};

/// What one tool lists of ours, for one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Without the fingerprint's chain.
    lines: Vec<String>,
    fingerprint: Option<Fingerprint>,
}

/// The name of the chain that remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of what was wanted and of what was listed then.
    pub fn new(wanted: &str, listing: &Listing) -> Self {
        let listed = listing.lines.join("\n");
        Self(format!("{PREFIX}{:08x}{:08x}", short(wanted), short(&listed)))
    }

    fn parse(chain: &str) -> Option<Self> {
        let digits = chain.strip_prefix(PREFIX)?;
        let hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        (digits.len() == 16 && digits.chars().all(hex)).then(|| Self(chain.to_owned()))
    }

    pub fn chain(&self) -> &str {
        &self.0
    }

    /// Whether the same was wanted.
    fn same_plan(&self, other: &Self) -> bool {
        self.0[..PREFIX.len() + 8] == other.0[..PREFIX.len() + 8]
    }
}

/// Half of a hash: two fit into the 28 letters that the name of a chain may have.
fn short(text: &str) -> u32 {
    (xxh3_64(text.as_bytes()) >> 32) as u32
}

impl Listing {
    /// Of what `nft -s list table` prints.
    pub fn of_nft(text: &str) -> Self {
        let mut listing = Self::default();
        let mut lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).peekable();
        while let Some(line) = lines.next() {
            let chain = line.trim().strip_prefix("chain ").and_then(|line| line.strip_suffix(" {"));
            match chain.and_then(Fingerprint::parse) {
                // A rule in it was not put there by us, so such a chain is an ordinary one.
                Some(found) if lines.peek().is_some_and(|next| next.trim() == "}") => {
                    lines.next();
                    listing.fingerprint = Some(found);
                }
                _ => listing.lines.push(line.to_owned()),
            }
        }
        listing
    }

    /// Of what `iptables-save` prints.
    pub fn of_iptables(saved: &Saved) -> Self {
        let fingerprint = saved.chains().find_map(Fingerprint::parse);
        let lines = saved.lines(fingerprint.as_ref().map(Fingerprint::chain));
        Self { lines, fingerprint }
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        let other = |line: &str| {
            let line = line.trim();
            line == "}"
                || line.ends_with('{')
                || line.starts_with("type ")
                || line.split(": ").nth(1).is_some_and(|rest| rest.starts_with(':'))
        };
        self.lines.iter().filter(|line| !other(line)).count()
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.fingerprint.is_none()
    }

    /// Whether these are the rules that were put there for what is wanted.
    pub fn holds(&self, wanted: &str) -> bool {
        self.fingerprint.as_ref() == Some(&Fingerprint::new(wanted, self))
    }

    /// Why `self` was replaced by `new`, which is what is `wanted`.
    pub fn change(&self, wanted: &str, new: &Self) -> Change {
        if self.is_empty() {
            return Change::New;
        }
        let now = Fingerprint::new(wanted, new);
        if self.fingerprint.as_ref().is_some_and(|before| !before.same_plan(&now)) {
            return Change::OtherPlan;
        }
        Change::Drift(Difference::between(&self.lines, &new.lines))
    }
}

/// What a run did to the rules of a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They were there.
    None,
    /// There were none.
    New,
    /// Those of a run with other options were replaced.
    OtherPlan,
    /// Somebody had changed them; they were put right.
    Drift(Difference),
}

/// How rules that somebody changed differ from those that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub missing: Vec<String>,
    pub unknown: Vec<String>,
}

impl Difference {
    fn between(found: &[String], wanted: &[String]) -> Self {
        let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
        for line in wanted {
            *counts.entry(line.trim()).or_default() += 1;
        }
        for line in found {
            *counts.entry(line.trim()).or_default() -= 1;
        }
        let mut difference = Self::default();
        for (line, count) in counts {
            let (lines, times) = if count > 0 {
                (&mut difference.missing, count)
            } else {
                (&mut difference.unknown, -count)
            };
            lines.extend((0..times).map(|_| line.to_owned()));
        }
        difference
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |lines: &[String]| match lines {
            [] => None,
            _ => Some(lines.iter().map(|line| format!("`{line}`")).collect::<Vec<_>>().join(", ")),
        };
        match (told(&self.missing), told(&self.unknown)) {
            (None, None) => f.write_str("the rules were in another order, or not ours for certain"),
            (Some(missing), None) => write!(f, "missing: {missing}"),
            (None, Some(unknown)) => write!(f, "not ours: {unknown}"),
            (Some(missing), Some(unknown)) => write!(f, "missing: {missing}; not ours: {unknown}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "# Generated\n*nat\n:PREROUTING ACCEPT [3:4]\n:MESHWRIGHT_OUTPUT - [0:0]\n\
                         -A OUTPUT -j MESHWRIGHT_OUTPUT\n-A OUTPUT -j OTHER\n\
                         -A MESHWRIGHT_OUTPUT -d 127.0.0.1/32 -j RETURN\nCOMMIT\n";

    fn remembered(saved: &str, wanted: &str) -> String {
        let chain = Fingerprint::new(wanted, &Listing::of_iptables(&Saved::parse(saved)));
        saved.replace("COMMIT", &format!(":{} - [0:0]\nCOMMIT", chain.chain()))
    }

    fn listing(saved: &str) -> Listing {
        Listing::of_iptables(&Saved::parse(saved))
    }

    #[test]
    fn what_was_put_there_is_known_again() {
        let saved = remembered(SAVED, "wanted");
        assert!(listing(&saved).holds("wanted"));
        assert!(!listing(&saved).holds("other"));
        assert!(!listing(SAVED).holds("wanted"), "nobody says what it was");
        let counted = saved.replace("[3:4]", "[7:8]").replace("-j OTHER", "-j ANOTHER");
        assert!(listing(&counted).holds("wanted"), "counters and other people's rules");
        let chain = listing(&saved).fingerprint.unwrap();
        assert!(chain.chain().len() <= 28, "{chain:?} is too long for iptables");
    }

    #[test]
    fn drift_says_what_differs() {
        let saved = remembered(SAVED, "wanted");
        let changed = saved.replace("-d 127.0.0.1/32 -j RETURN", "-j ACCEPT");
        assert!(!listing(&changed).holds("wanted"));
        let Change::Drift(difference) = listing(&changed).change("wanted", &listing(SAVED)) else {
            panic!("drift");
        };
        assert_eq!(
            difference.to_string(),
            "missing: `nat: -A MESHWRIGHT_OUTPUT -d 127.0.0.1/32 -j RETURN`; \
             not ours: `nat: -A MESHWRIGHT_OUTPUT -j ACCEPT`"
        );
    }

    #[test]
    fn another_plan_is_no_drift() {
        let saved = listing(&remembered(SAVED, "before"));
        assert_eq!(saved.change("now", &listing(SAVED)), Change::OtherPlan);
        assert_eq!(Listing::default().change("now", &listing(SAVED)), Change::New);
    }

    #[test]
    fn nft_lists_are_read_alike() {
        let text = "table ip meshwright {\n\tchain A {\n\t\treturn\n\t}\n\n}\n";
        let listing = Listing::of_nft(text);
        let chain = Fingerprint::new("wanted", &listing);
        let with = |body: &str| {
            let chain = format!("\tchain {} {{\n{body}\t}}\n}}\n", chain.chain());
            Listing::of_nft(&text.replace("\n}\n", &format!("\n{chain}")))
        };
        assert!(with("").holds("wanted"));
        assert!(!with("\t\taccept\n").holds("wanted"), "somebody put a rule into it");
    }
}
