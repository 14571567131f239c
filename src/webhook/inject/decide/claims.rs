//! What the labels of a namespace and a pod say about who shall inject.

use super::{Brand, Labels, Pairs, Reason};
use crate::{api::meshwright::labels::DEFAULT_REVISION, webhook::inject::InjectConfig};

/// One label that says something.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claim<'a> {
    pub on_namespace: bool,
    pub key: &'static str,
    pub value: &'a str,
    pub says: Says<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says<'a> {
    No,
    /// Yes, without naming a revision.
    Yes,
    Revision(&'a str),
    /// Nothing that we understand, which is no.
    Unclear,
}

/// All claims, the strongest first: it decides alone.
///
/// A namespace is stronger than a pod, our labels are stronger than Istio's.
pub(super) fn all<'a>(
    namespace: &'a Labels,
    pod: Pairs<'a>,
    brands: &'static [Brand],
) -> Vec<Claim<'a>> {
    let of_namespace = brands.iter().flat_map(|brand| namespace_claims(namespace, brand));
    let of_pod = brands.iter().flat_map(|brand| pod_claims(pod, brand));
    of_namespace.chain(of_pod).collect()
}

fn namespace_claims<'a>(labels: &'a Labels, brand: &'static Brand) -> Vec<Claim<'a>> {
    let claim = |key: &'static str, says: fn(&'a str) -> Says<'a>| {
        let value = labels.get(key)?;
        Some(Claim { on_namespace: true, key, value, says: says(value) })
    };
    let injection = claim(brand.injection, |value| match value {
        "enabled" => Says::Yes,
        "disabled" => Says::No,
        _ => Says::Unclear,
    });
    let revision = claim(brand.revision, Says::Revision);
    let injection_first = brand.injection_wins
        || injection.as_ref().is_some_and(|injection| injection.says == Says::No);
    let ordered = if injection_first { [injection, revision] } else { [revision, injection] };
    ordered.into_iter().flatten().collect()
}

fn pod_claims<'a>(labels: Pairs<'a>, brand: &'static Brand) -> Vec<Claim<'a>> {
    let claim = |key, value, says| Claim { on_namespace: false, key, value, says };
    let revision =
        labels.get(brand.revision).map(|value| claim(brand.revision, value, Says::Revision(value)));
    let inject = labels
        .get(brand.inject)
        .filter(|value| *value == "true")
        .map(|value| claim(brand.inject, value, Says::Yes));
    revision.into_iter().chain(inject).collect()
}

impl Claim<'_> {
    /// Why this claim makes the revision of `config` inject, or why it does not.
    pub(super) fn reason(&self, config: &InjectConfig) -> Result<Reason, Reason> {
        let asked = match self.says {
            Says::No => return Err(Reason::NamespaceOptedOut(self.label())),
            Says::Unclear => return Err(Reason::NamespaceUnclear(self.label())),
            Says::Yes => DEFAULT_REVISION,
            Says::Revision(revision) => revision,
        };
        if !config.answers_to(asked) {
            return Err(Reason::OtherRevision(asked.to_owned()));
        }
        let is_tag = asked != config.revision;
        Ok(match (self.says, self.on_namespace) {
            (Says::Revision(tag), true) if is_tag => Reason::NamespaceTag(tag.to_owned()),
            (Says::Revision(tag), false) if is_tag => Reason::PodTag(tag.to_owned()),
            (Says::Revision(_), true) => Reason::NamespaceRevision,
            (Says::Revision(_), false) => Reason::PodRevision,
            (_, true) => Reason::NamespaceEnabled,
            (_, false) => Reason::PodEnabled,
        })
    }

    /// `KEY=VALUE`.
    pub(super) fn label(&self) -> String {
        format!("{}={}", self.key, self.value)
    }

    /// Whether `other`, which is weaker, asks for something else than what this one gets it.
    pub(super) fn overrules(&self, other: &Claim<'_>) -> bool {
        let wanted = |says| match says {
            Says::Yes => Some(DEFAULT_REVISION),
            Says::Revision(revision) => Some(revision),
            Says::No | Says::Unclear => None,
        };
        match (wanted(self.says), other.says) {
            (Some(revision), Says::Revision(other)) => other != revision,
            (Some(_), Says::No | Says::Unclear) | (None, Says::Yes | Says::Revision(_)) => true,
            // A plain yes goes with any revision, and a no with a no.
            (Some(_), Says::Yes) | (None, _) => false,
        }
    }
}
