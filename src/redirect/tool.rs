//! The tools that hand rules to the kernel.

use crate::redirect::{
    Family, Ruleset,
    command::{Failed, run},
    render::{self, Saved},
    state::{Change, Fingerprint, Listing},
};

/// Which tool applies the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// nftables where it works, else iptables
    #[default]
    Auto,
    /// `iptables-restore`, over nf_tables or legacy
    Iptables,
    /// `nft`
    Nftables,
}

/// One way to apply the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Nft,
    /// The kind of iptables, as its programs are named: `iptables-KIND-save`.
    Iptables(&'static str),
}

impl Backend {
    pub(super) fn tools(self) -> &'static [Tool] {
        match self {
            Self::Auto => &Tool::ALL,
            Self::Iptables => &Tool::ALL[1..],
            Self::Nftables => &Tool::ALL[..1],
        }
    }
}

/// Another process may be at it, but not for ever.
const WAIT: &str = "--wait=10";

impl Tool {
    pub(super) const ALL: [Self; 3] = [Self::Nft, Self::Iptables("nft"), Self::Iptables("legacy")];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables("legacy") => "iptables-legacy",
            Self::Iptables(_) => "iptables-nft",
        }
    }

    /// Puts the rules in place, if they are not, and says for each family what it did.
    pub(super) fn ensure(self, rules: &[(Family, Ruleset)]) -> Result<Vec<Change>, Failed> {
        let before = self.list_all(rules);
        let in_place =
            rules.iter().zip(&before).all(|(rules, found)| found.holds(&self.wanted(rules)));
        if in_place {
            return Ok(vec![Change::None; rules.len()]);
        }
        self.put(rules)?;
        let after = self.list_all(rules);
        let mut changes = Vec::new();
        for ((rules, before), after) in rules.iter().zip(&before).zip(&after) {
            let wanted = self.wanted(rules);
            self.complete(&rules.1, after)?;
            self.remember(rules.0, &Fingerprint::new(&wanted, after))?;
            changes.push(before.change(&wanted, after));
        }
        Ok(changes)
    }

    /// A tool that says nothing and does half is not to be believed.
    fn complete(self, rules: &Ruleset, listing: &Listing) -> Result<(), Failed> {
        let (wanted, found) = (rules.count(), listing.rules());
        if wanted == found {
            return Ok(());
        }
        let reason = format!("of {wanted} rules that it took the kernel lists {found}");
        Err(Failed::new(self.name(), reason))
    }

    /// Takes away what is ours, and says whether there was something.
    pub(super) fn remove(self, families: &[Family]) -> Result<bool, Failed> {
        let mut found = false;
        for family in families {
            if self.list(*family).is_empty() {
                continue;
            }
            found = true;
            match self {
                Self::Nft => run("nft", &["-f", "-"], &render::without_nftables(*family))?,
                Self::Iptables(kind) => {
                    let saved = save(kind, *family)?;
                    restore(kind, *family, &render::without_iptables(&saved))?
                }
            };
        }
        Ok(found)
    }

    /// The text that is wanted of a family.
    fn wanted(self, rules: &(Family, Ruleset)) -> String {
        match self {
            Self::Nft => render::nftables(std::slice::from_ref(rules)),
            Self::Iptables(_) => render::iptables(&rules.1, &Saved::default()),
        }
    }

    fn list_all(self, rules: &[(Family, Ruleset)]) -> Vec<Listing> {
        rules.iter().map(|(family, _)| self.list(*family)).collect()
    }

    /// What there is of ours; nothing where the tool does not work.
    pub(super) fn list(self, family: Family) -> Listing {
        match self {
            Self::Nft => {
                let table = ["-s", "list", "table", render::nft_family(family), render::NFT_TABLE];
                run("nft", &table, "").map(|text| Listing::of_nft(&text)).unwrap_or_default()
            }
            Self::Iptables(kind) => {
                save(kind, family).map(|saved| Listing::of_iptables(&saved)).unwrap_or_default()
            }
        }
    }

    fn put(self, rules: &[(Family, Ruleset)]) -> Result<(), Failed> {
        match self {
            Self::Nft => run("nft", &["-f", "-"], &render::nftables(rules)).map(drop),
            Self::Iptables(kind) => {
                let mut before = Vec::new();
                let put = put_families(kind, rules, &mut before);
                if put.is_err() {
                    put_back(kind, &before);
                }
                put
            }
        }
    }

    fn remember(self, family: Family, fingerprint: &Fingerprint) -> Result<(), Failed> {
        let chain = fingerprint.chain();
        match self {
            Self::Nft => run("nft", &["-f", "-"], &render::remember_nftables(family, chain)),
            Self::Iptables(kind) => restore(kind, family, &render::remember_iptables(chain)),
        }
        .map(drop)
    }
}

/// Each family is a call of its own, and each table takes effect for itself.
fn put_families(
    kind: &str,
    rules: &[(Family, Ruleset)],
    before: &mut Vec<(Family, Saved)>,
) -> Result<(), Failed> {
    for (family, rules) in rules {
        let saved = save(kind, *family)?;
        let text = render::iptables(rules, &saved);
        before.push((*family, saved));
        restore(kind, *family, &text)?;
    }
    Ok(())
}

/// Half of new rules is worse than all of the old ones.
fn put_back(kind: &str, before: &[(Family, Saved)]) {
    for (family, saved) in before {
        let back =
            save(kind, *family).and_then(|now| restore(kind, *family, &render::back(saved, &now)));
        if let Err(error) = back {
            tracing::warn!(%error, "cannot put back the rules that there were");
        }
    }
}

/// All tables that there are: to name one would make it.
fn save(kind: &str, family: Family) -> Result<Saved, Failed> {
    let program = format!("{}-{kind}-save", render::program(family));
    run(&program, &[], "").map(|text| Saved::parse(&text))
}

fn restore(kind: &str, family: Family, text: &str) -> Result<String, Failed> {
    run(&format!("{}-{kind}-restore", render::program(family)), &["--noflush", WAIT], text)
}
