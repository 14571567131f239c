//! The names under which namespaces and pods choose an installation: its revision and its tags. Each
//! belongs to one installation at any time: the oldest of those that have it and stay. One that is
//! being deleted keeps only the names that nobody else asks for.
//!
//! So a tag moves by one change of one object. The next revision lists the tag already and waits; it
//! has it as soon as the older one takes it out of its `spec.tags`, and the older one has it back as
//! soon as it is written there again.

use std::collections::BTreeSet;

use kube::ResourceExt;

use crate::{
    api::meshwright::MeshInstallation,
    diagnostic::{Diagnostic, ObjectRef},
};

const LONGEST_LABEL: usize = 63;

/// The tags of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// In force.
    pub held: Vec<String>,
    /// In force as soon as this other installation gives them up: (tag, its name). So a tag moves
    /// from one revision to another without a moment in which it belongs to none.
    pub waiting: Vec<(String, String)>,
    /// Given up, and selected by the webhook until this other installation's webhook does: (name, its
    /// name). Known to whoever looks at the cluster, so empty in what [`tags`] gives.
    pub kept: Vec<(String, String)>,
}

/// Which of an installation's tags are in force.
pub fn tags<'a>(
    installation: &MeshInstallation,
    all: impl Iterator<Item = &'a MeshInstallation>,
) -> Tags {
    let all: Vec<_> = all.collect();
    let mut tags = Tags::default();
    for tag in &installation.spec.tags {
        let first = holder(tag, all.iter().copied().chain([installation]));
        match first.filter(|holder| holder.name_any() != installation.name_any()) {
            Some(holder) => tags.waiting.push((tag.clone(), holder.name_any())),
            None => tags.held.push(tag.clone()),
        }
    }
    tags
}

/// The one installation that a name belongs to.
pub fn holder<'a>(
    name: &str,
    all: impl Iterator<Item = &'a MeshInstallation>,
) -> Option<&'a MeshInstallation> {
    all.filter(|installation| has(installation, name)).min_by_key(|one| precedence(one))
}

/// Who comes first has the name. One that is not stored yet has no age and is the youngest.
fn precedence(installation: &MeshInstallation) -> impl Ord + use<> {
    let born = installation.creation_timestamp().map(|time| time.0);
    (is_leaving(installation), born.is_none(), born, installation.name_any())
}

/// Whether somebody has deleted it and it is on its way out.
pub fn is_leaving(installation: &MeshInstallation) -> bool {
    installation.metadata.deletion_timestamp.is_some()
}

/// What is wrong with the names. A name that somebody else has is an error for a revision, which
/// cannot change, and a warning for a tag, which waits.
pub(super) fn check(
    about: &ObjectRef,
    installation: &MeshInstallation,
    others: &[&MeshInstallation],
) -> Vec<Diagnostic> {
    let revision = &installation.spec.revision;
    let mut found = Vec::new();
    // The objects of a revision are still there while it is on its way out; its tags are free.
    let in_the_way = |other: &&&MeshInstallation| {
        is_older(other, installation)
            && (other.spec.revision == *revision || !is_leaving(other) && has(other, revision))
    };
    for other in others.iter().filter(in_the_way) {
        let name = other.name_any();
        let message = if other.spec.revision == *revision {
            format!("MeshInstallation {name} has revision {revision} already: choose another")
        } else {
            format!(
                "MeshInstallation {name} has the tag {revision}: choose another revision, or take it out of its spec.tags first"
            )
        };
        found.push(Diagnostic::error(about, "spec.revision", "RevisionTaken", message));
    }
    found.extend(own_tags(about, installation));
    for (tag, holder) in tags(installation, others.iter().copied()).waiting {
        let index = installation.spec.tags.iter().position(|other| *other == tag);
        let path = format!("spec.tags[{}]", index.unwrap_or_default());
        let message = format!(
            "{tag} is a name of MeshInstallation {holder}, which keeps it: take it out of the spec.tags of {holder} (or delete {holder}, where it is the revision), then it is in force here at once"
        );
        found.push(Diagnostic::warning(about, path, "TagTaken", message));
    }
    found
}

/// What is wrong with the tags whatever others have.
fn own_tags(about: &ObjectRef, installation: &MeshInstallation) -> Vec<Diagnostic> {
    let mut names = BTreeSet::from([&installation.spec.revision]);
    let mut found = Vec::new();
    for (index, tag) in installation.spec.tags.iter().enumerate() {
        let path = format!("spec.tags[{index}]");
        if !is_label_value(tag) {
            let message = format!(
                "{tag:?} cannot be the value of a label: use at most {LONGEST_LABEL} letters, digits, '-', '_' and '.', with a letter or digit at both ends"
            );
            found.push(Diagnostic::error(about, path, "InvalidTag", message));
        } else if !names.insert(tag) {
            let message =
                format!("{tag} is the revision itself or stands above already: remove it");
            found.push(Diagnostic::error(about, path, "Duplicate", message));
        }
    }
    found
}

/// Whether `other` came before. One that is not stored yet has no age and is the youngest.
pub(super) fn is_older(other: &MeshInstallation, than: &MeshInstallation) -> bool {
    let age = |i: &MeshInstallation| (i.creation_timestamp().map(|t| t.0), i.name_any());
    other.name_any() != than.name_any()
        && (than.creation_timestamp().is_none() || age(other) < age(than))
}

fn has(installation: &MeshInstallation, name: &str) -> bool {
    installation.spec.revision == name || installation.spec.tags.iter().any(|tag| tag == name)
}

fn is_label_value(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let at_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST_LABEL
        && bytes.iter().all(|byte| inside(*byte))
        && at_end(bytes.first())
        && at_end(bytes.last())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;
    use crate::api::meshwright::MeshInstallationSpec;

    fn installation(name: &str, age: i64, revision: &str, tags: &[&str]) -> MeshInstallation {
        let spec = MeshInstallationSpec {
            revision: revision.to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..MeshInstallationSpec::default()
        };
        let mut installation = MeshInstallation::new(name, spec);
        let born = Timestamp::from_second(1_000 - age).unwrap();
        installation.metadata.creation_timestamp = Some(Time(born));
        installation
    }

    fn problems(installation: &MeshInstallation, others: &[&MeshInstallation]) -> Vec<String> {
        let about = super::super::installation::object_ref(installation);
        let found = check(&about, installation, others);
        found.iter().map(|f| format!("{} {:?} {}", f.path, f.severity, f.reason)).collect()
    }

    #[test]
    fn tags_are_label_values_that_stand_once() {
        let long = "x".repeat(64);
        let tags = ["prod.stable_1", "v1", "-x", "a b", "", &long, "prod.stable_1"];
        assert_eq!(
            problems(&installation("a", 0, "v1", &tags), &[]),
            [
                "spec.tags[1] Error Duplicate",
                "spec.tags[2] Error InvalidTag",
                "spec.tags[3] Error InvalidTag",
                "spec.tags[4] Error InvalidTag",
                "spec.tags[5] Error InvalidTag",
                "spec.tags[6] Error Duplicate",
            ]
        );
    }

    #[test]
    fn the_oldest_holds_a_tag_and_the_next_one_waits() {
        let old = installation("old", 9, "v1", &["stable"]);
        let new = installation("new", 1, "v2", &["stable", "canary"]);
        assert_eq!(tags(&old, [&old, &new].into_iter()).held, ["stable"]);
        let waiting = tags(&new, [&old, &new].into_iter());
        assert_eq!(waiting.held, ["canary"]);
        assert_eq!(waiting.waiting, [("stable".to_owned(), "old".to_owned())]);
        assert_eq!(problems(&new, &[&old, &new]), ["spec.tags[0] Warning TagTaken"]);
        assert!(problems(&old, &[&old, &new]).is_empty());
        // The old one gives it up.
        let old = installation("old", 9, "v1", &[]);
        assert_eq!(tags(&new, [&old, &new].into_iter()).held, ["stable", "canary"]);
    }

    #[test]
    fn one_change_moves_a_tag_and_one_change_moves_it_back() {
        let new = installation("new", 1, "v2", &["stable"]);
        let holds = |old_tags: &[&str]| {
            let old = installation("old", 9, "v1", old_tags);
            holder("stable", [&new, &old].into_iter()).unwrap().name_any()
        };
        assert_eq!(holds(&["stable"]), "old");
        assert_eq!(holds(&[]), "new");
        assert_eq!(holds(&["stable"]), "old");
    }

    #[test]
    fn who_is_being_deleted_gives_way() {
        let mut old = installation("default", 9, "default", &["stable"]);
        old.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let heir = installation("heir", 1, "v2", &["default"]);
        let all = || [&old, &heir].into_iter();
        assert_eq!(tags(&heir, all()).held, ["default"]);
        assert_eq!(holder("default", all()).unwrap().name_any(), "heir");
        assert_eq!(holder("stable", all()).unwrap().name_any(), "default", "nobody else asks");
        let again = installation("again", 0, "default", &[]);
        assert_eq!(
            problems(&again, &[&old, &again]),
            ["spec.revision Error RevisionTaken"],
            "its objects are still there"
        );
    }

    #[test]
    fn a_revision_and_a_tag_of_one_name_are_not_two() {
        let default = installation("default", 9, "default", &[]);
        let heir = installation("heir", 1, "v2", &["default"]);
        assert_eq!(problems(&heir, &[&default, &heir]), ["spec.tags[0] Warning TagTaken"]);
        assert_eq!(tags(&heir, std::iter::once(&heir)).held, ["default"]);
        let late = installation("late", 0, "default", &[]);
        assert_eq!(problems(&late, &[&heir, &late]), ["spec.revision Error RevisionTaken"]);
    }
}
