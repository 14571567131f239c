//! Whether an installation may be deleted: not while pods have a proxy of its revision, which would
//! lose its control plane.
//!
//! The operator asks the same before it takes the control plane away, for an installation whose
//! deletion nobody refused because no webhook was there.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams, core::PartialObjectMeta};

use super::super::review::{Answer, Request};
use crate::api::meshwright::{
    MeshInstallation,
    labels::{ALLOW_REMOVAL, INSTALLATION, REVISION},
};

/// So many pods are read to be counted; of more it is only said that there are more.
const READ: u32 = 500;
/// So many are named.
const NAMED: usize = 10;

/// Pods that have a proxy of a revision, without the gateways of its installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Namespace and name.
    pub pods: Vec<(String, String)>,
    /// Whether there are more than were read.
    pub more: bool,
}

/// Answers the review of a deletion.
pub async fn answer(client: &Client, request: &Request) -> Answer {
    // What cannot be read was never installed.
    let Ok(installation) = super::read::<MeshInstallation>(&request.old_object) else {
        return Answer::allow();
    };
    if super::names::is_leaving(&installation) || is_allowed(&installation) {
        return Answer::allow();
    }
    match remaining(client, &installation).await {
        Ok(remaining) if remaining.is_none() => Answer::allow(),
        Ok(remaining) => Answer::Forbid(remaining.refusal(&installation)),
        Err(error) => Answer::Fail(format!("cannot list pods: {error}")),
    }
}

/// Whether the installation may go under its proxies.
pub fn is_allowed(installation: &MeshInstallation) -> bool {
    installation.annotations().get(ALLOW_REMOVAL).is_some_and(|value| value == "true")
}

/// Asks the API server: a cache could be behind, and nobody deletes installations often.
pub async fn remaining(
    client: &Client,
    installation: &MeshInstallation,
) -> Result<Remaining, kube::Error> {
    let name = installation.name_any();
    let params = ListParams::default()
        .labels(&format!("{REVISION}={},{INSTALLATION}!={name}", installation.spec.revision))
        .fields("status.phase!=Succeeded,status.phase!=Failed")
        .limit(READ);
    let list = Api::<Pod>::all(client.clone()).list_metadata(&params).await?;
    let more = list.metadata.continue_.as_deref().is_some_and(|token| !token.is_empty());
    Ok(Remaining { pods: staying(&list.items), more })
}

/// Those that are not on their way out.
fn staying(pods: &[PartialObjectMeta<Pod>]) -> Vec<(String, String)> {
    let mut names: Vec<_> = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .map(|pod| (pod.namespace().unwrap_or_default(), pod.name_any()))
        .collect();
    names.sort();
    names
}

impl Remaining {
    pub fn is_none(&self) -> bool {
        // A page of pods that are on their way out says nothing about the next one.
        self.pods.is_empty() && !self.more
    }

    /// `3 pods: a/x, a/y, b/z`.
    pub fn names(&self) -> String {
        let named =
            self.pods.iter().take(NAMED).map(|(namespace, pod)| format!("{namespace}/{pod}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let count = self.pods.len();
        let others = match (count.saturating_sub(NAMED), self.more) {
            (0, false) => String::new(),
            (others, false) => format!(" and {others} more"),
            (others, true) => format!(" and more than {others} more"),
        };
        let at_least = if self.more { "more than " } else { "" };
        let pods = if count == 1 && !self.more { "pod" } else { "pods" };
        format!("{at_least}{count} {pods}: {named}{others}")
    }

    /// Why it may not go, and what to do.
    pub fn refusal(&self, installation: &MeshInstallation) -> String {
        let namespaces: BTreeSet<_> = self.pods.iter().map(|(namespace, _)| &**namespace).collect();
        let namespaces = namespaces.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        let (name, revision) = (installation.name_any(), &installation.spec.revision);
        format!(
            "revision {revision} still has proxies, which would lose their control plane. It has {}. Move their namespaces ({namespaces}) to another revision (a tag, or the label {REVISION}) or out of the mesh, and restart them; or set the annotation {ALLOW_REMOVAL}=true on MeshInstallation {name} to remove it under them",
            self.names()
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_on_their_way_out_do_not_count() {
        let pods: Vec<PartialObjectMeta<Pod>> = serde_json::from_value(json!([
            {"metadata": {"namespace": "shop", "name": "web"}},
            {"metadata": {"name": "leaving", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        ]))
        .unwrap();
        assert_eq!(staying(&pods), [("shop".to_owned(), "web".to_owned())]);
    }

    #[test]
    fn names_ten_and_counts_the_rest() {
        let pods = |count: usize| (0..count).map(|i| ("a".to_owned(), format!("p{i}"))).collect();
        let text = |count, more| Remaining { pods: pods(count), more }.names();
        assert_eq!(text(1, false), "1 pod: a/p0");
        assert_eq!(text(2, false), "2 pods: a/p0, a/p1");
        assert!(text(12, false).ends_with("a/p9 and 2 more"), "{}", text(12, false));
        assert!(text(500, true).starts_with("more than 500 pods: a/p0, "));
        assert!(Remaining::default().is_none());
    }
}
