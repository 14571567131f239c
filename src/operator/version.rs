//! Which versions of an installation an operator can run.
//!
//! Only tags that are versions are judged: who runs images of their own naming knows what is in them.

use crate::diagnostic::{Diagnostic, ObjectRef};

/// How far an installation, and with it its proxies, may be behind the operator.
pub const MINORS_BEHIND: u64 = 2;

/// A version: `1.2.3`, `v1.2`, `1.2.3-rc.1+build`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    /// A version before the one that it is named after: `rc.1`.
    pub early: Option<String>,
}

impl Version {
    /// Reads a tag; nothing for one that is no version.
    pub fn parse(tag: &str) -> Option<Self> {
        let text = tag.strip_prefix('v').unwrap_or(tag);
        let text = text.split('+').next()?;
        let (numbers, early) = match text.split_once('-') {
            Some((numbers, early)) => (numbers, Some(early)),
            None => (text, None),
        };
        let number = |part: &str| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse::<u64>().ok())?
        };
        let parts: Vec<_> = numbers.split('.').map(number).collect::<Option<_>>()?;
        let (major, minor, patch) = match parts[..] {
            [major, minor] => (major, minor, 0),
            [major, minor, patch] => (major, minor, patch),
            // A number alone may be a build or a date.
            _ => return None,
        };
        let valid = early.is_none_or(|early| !early.is_empty());
        valid.then(|| Self { major, minor, patch, early: early.map(str::to_owned) })
    }

    /// Orders as semantic versioning does, with early versions of one release in order of their text.
    fn order(&self) -> (u64, u64, u64, bool, &str) {
        let early = self.early.as_deref().unwrap_or_default();
        (self.major, self.minor, self.patch, self.early.is_none(), early)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

/// How a version stands to the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skew {
    /// It can be run, as far as anybody can tell.
    Fits,
    /// Of a later minor version: the operator does not know what it needs.
    Newer,
    /// Further behind than anybody has tried.
    TooOld,
}

/// Judges the tag of an installation by the operator's version.
pub fn skew(operator: &str, tag: &str) -> Skew {
    let (Some(operator), Some(version)) = (Version::parse(operator), Version::parse(tag)) else {
        return Skew::Fits;
    };
    let (ours, theirs) = ((operator.major, operator.minor), (version.major, version.minor));
    if theirs > ours {
        Skew::Newer
    } else if theirs.0 < ours.0 || ours.1 - theirs.1 > MINORS_BEHIND {
        Skew::TooOld
    } else {
        Skew::Fits
    }
}

/// What is wrong with `spec.version` for this operator.
pub fn check(about: &ObjectRef, tag: &str) -> Option<Diagnostic> {
    let operator = env!("CARGO_PKG_VERSION");
    let (reason, message) = match skew(operator, tag) {
        Skew::Fits => return None,
        Skew::Newer => (
            "VersionTooNew",
            format!(
                "{tag} is newer than this operator, which is {operator}: upgrade the operator first"
            ),
        ),
        Skew::TooOld => (
            "VersionTooOld",
            format!(
                "{tag} is more than {MINORS_BEHIND} minor versions behind this operator, which is {operator}: name a later version"
            ),
        ),
    };
    Some(Diagnostic::error(about, "spec.version", reason, message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_versions_and_nothing_else() {
        for (tag, wanted) in [
            ("1.2.3", Some((1, 2, 3))),
            ("v1.2", Some((1, 2, 0))),
            ("1.2.3-rc.1", Some((1, 2, 3))),
            ("1.2.3+build-7", Some((1, 2, 3))),
            ("20261121", None),
            ("latest", None),
            ("1.2.x", None),
            ("1.2.3-", None),
            ("1..2", None),
            ("1.2.3.4", None),
            ("99999999999999999999.1", None),
            ("", None),
        ] {
            let found = Version::parse(tag).map(|v| (v.major, v.minor, v.patch));
            assert_eq!(found, wanted, "{tag}");
        }
    }

    #[test]
    fn orders_early_versions_before_the_release() {
        let order = ["1.2.3-beta.1", "1.2.3-rc.1", "1.2.3", "1.2.4-rc.1", "1.10.0", "2.0.0"];
        let versions: Vec<_> = order.iter().map(|tag| Version::parse(tag).unwrap()).collect();
        assert!(versions.is_sorted());
    }

    #[test]
    fn two_minor_versions_behind_is_fine_and_three_is_not() {
        for (operator, tag, wanted) in [
            ("1.5.0", "1.5.9", Skew::Fits),
            ("1.5.0", "1.3.0", Skew::Fits),
            ("1.5.0", "1.2.9", Skew::TooOld),
            ("2.0.0", "1.9.0", Skew::TooOld),
            ("1.5.0", "1.6.0-rc.1", Skew::Newer),
            ("1.5.0", "2.0.0", Skew::Newer),
            ("1.5.0", "", Skew::Fits),
            ("1.5.0", "my-build", Skew::Fits),
            ("my-build", "9.9.9", Skew::Fits),
        ] {
            assert_eq!(skew(operator, tag), wanted, "{operator} runs {tag}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_tag_says_it_is_judged(operator in "[0-9v.+-]{0,12}", tag in ".{0,12}") {
            skew(&operator, &tag);
        }

        #[test]
        fn of_one_major_version_exactly_three_minors_fit(minor in 2_u64..1000, tag in 0_u64..1010) {
            let fits = skew(&format!("1.{minor}.0"), &format!("1.{tag}.0")) == Skew::Fits;
            prop_assert_eq!(fits, (minor - 2..=minor).contains(&tag));
        }
    }
}
