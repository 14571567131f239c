//! What is to be done about a definition. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;

use crate::{
    api::meshwright::labels::{DEFINITIONS, UPGRADE_DEFINITIONS},
    operator::{apply::covers, version::Version},
};

/// Our own group, whose definitions are ours whoever installed them.
const GROUP: &str = "meshwright.dev";

/// What is to be done about a definition.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It is of another project, or its owner keeps it.
    LeaveAlone,
    /// It is of this version, newer than ours.
    Newer(String),
    /// It is as it should be.
    Keep,
    Upgrade(Box<Steps>),
}

/// How an upgrade goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps {
    /// Ours, and where objects are stored in versions that ours does not have: ours with these. The
    /// API server refuses to drop a version in which something is stored.
    pub bridge: Option<CustomResourceDefinition>,
    /// Ours.
    pub target: CustomResourceDefinition,
    /// Whether the definition itself is to be written.
    pub write: bool,
    /// Whether objects are to be written anew, since they may be stored in another version.
    pub migrate: bool,
}

/// Decides from our definition and the one in the cluster.
pub fn decide(ours: &CustomResourceDefinition, live: &CustomResourceDefinition) -> Decision {
    let version = |crd: &CustomResourceDefinition| {
        crd.annotations().get(DEFINITIONS).and_then(|tag| Version::parse(tag))
    };
    let marked = live.annotations().contains_key(DEFINITIONS);
    let disabled = live.annotations().get(UPGRADE_DEFINITIONS).is_some_and(|v| v == "disabled");
    if disabled || !marked && live.spec.group != GROUP {
        return Decision::LeaveAlone;
    }
    // Without a readable version it is older than all that have one.
    if let (Some(theirs), Some(mine)) = (version(live), version(ours))
        && theirs > mine
    {
        return Decision::Newer(live.annotations()[DEFINITIONS].clone());
    }
    let stored: BTreeSet<&str> = stored_versions(live).collect();
    let migrate = stored.iter().any(|version| Some(*version) != storage(ours));
    let write = !is_covered(ours, live);
    if !write && !migrate {
        return Decision::Keep;
    }
    let target = on_top_of(ours, live);
    let has = |version: &&str| ours.spec.versions.iter().any(|own| own.name == **version);
    let bridge = (!stored.iter().all(has)).then(|| bridge(&target, live, &stored));
    Decision::Upgrade(Box::new(Steps { bridge, target, write, migrate }))
}

/// Ours, with the versions in which objects are stored still.
fn bridge(
    target: &CustomResourceDefinition,
    live: &CustomResourceDefinition,
    stored: &BTreeSet<&str>,
) -> CustomResourceDefinition {
    let mut bridge = target.clone();
    let is_missing = |name: &str| !target.spec.versions.iter().any(|own| own.name == name);
    for version in &live.spec.versions {
        if stored.contains(version.name.as_str()) && is_missing(&version.name) {
            let mut version = version.clone();
            version.storage = false;
            bridge.spec.versions.push(version);
        }
    }
    bridge
}

/// Ours, with what Helm wrote to know the definition again: who applies under its name and leaves
/// these out takes them away.
fn on_top_of(
    ours: &CustomResourceDefinition,
    live: &CustomResourceDefinition,
) -> CustomResourceDefinition {
    let mut target = ours.clone();
    for (key, value) in live.annotations() {
        if key.starts_with("helm.sh/") || key.starts_with("meta.helm.sh/") {
            target.annotations_mut().insert(key.clone(), value.clone());
        }
    }
    for (key, value) in live.labels() {
        if key.starts_with("helm.sh/") || key.starts_with("app.kubernetes.io/") {
            target.labels_mut().insert(key.clone(), value.clone());
        }
    }
    target
}

/// Whether the definition in the cluster has all that ours has. The API server adds defaults.
fn is_covered(ours: &CustomResourceDefinition, live: &CustomResourceDefinition) -> bool {
    let marked = live.annotations().get(DEFINITIONS) == ours.annotations().get(DEFINITIONS);
    match (serde_json::to_value(&live.spec), serde_json::to_value(&ours.spec)) {
        (Ok(live), Ok(ours)) => marked && covers(&live, &ours),
        _ => false,
    }
}

/// The version that objects are stored in from now on.
pub fn storage(crd: &CustomResourceDefinition) -> Option<&str> {
    let stored = crd.spec.versions.iter().find(|version| version.storage);
    stored.map(|version| version.name.as_str())
}

/// The versions that objects may be stored in.
pub fn stored_versions(crd: &CustomResourceDefinition) -> impl Iterator<Item = &str> {
    let status = crd.status.iter();
    status.flat_map(|status| status.stored_versions.iter().flatten()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt;

    use super::*;
    use crate::api::{crd::Source, istio::networking, meshwright::MeshInstallation};

    fn ours() -> CustomResourceDefinition {
        Source::Meshwright.definitions().remove(0)
    }

    /// As a cluster has it: marked with this version, objects stored in these.
    fn live(version: Option<&str>, stored: &[&str]) -> CustomResourceDefinition {
        let mut crd = ours();
        crd.annotations_mut().remove(DEFINITIONS);
        if let Some(version) = version {
            crd.annotations_mut().insert(DEFINITIONS.to_owned(), version.to_owned());
        }
        let status = crd.status.get_or_insert_default();
        status.stored_versions = Some(stored.iter().map(|&name| name.to_owned()).collect());
        crd
    }

    /// With a version that it stores, before ours.
    fn with_older_storage(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
        let mut old = crd.spec.versions[0].clone();
        "v1alpha0".clone_into(&mut old.name);
        crd.spec.versions[0].storage = false;
        crd.spec.versions.push(old);
        crd
    }

    fn steps(live: &CustomResourceDefinition) -> Steps {
        match decide(&ours(), live) {
            Decision::Upgrade(steps) => *steps,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_of_our_version_stays() {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(decide(&ours(), &live(Some(version), &["v1alpha1"])), Decision::Keep);
    }

    #[test]
    fn what_is_older_is_upgraded_and_what_is_newer_is_not() {
        for version in [None, Some("0.0.1"), Some("not-a-version")] {
            let steps = steps(&live(version, &["v1alpha1"]));
            assert!(steps.write && !steps.migrate && steps.bridge.is_none(), "{version:?}");
        }
        let newer = live(Some("99.0.0"), &["v2", "v1alpha1"]);
        assert_eq!(decide(&ours(), &newer), Decision::Newer("99.0.0".to_owned()));
    }

    #[test]
    fn drift_of_our_own_version_is_undone() {
        let mut drifted = live(Some(env!("CARGO_PKG_VERSION")), &["v1alpha1"]);
        drifted.spec.versions[0].schema = None;
        assert!(steps(&drifted).write);
    }

    #[test]
    fn definitions_of_others_are_left_alone() {
        let istio = Source::Istio.definitions().remove(0);
        let theirs = networking::DestinationRule::crd();
        assert_eq!(decide(&istio, &theirs), Decision::LeaveAlone);
        // Those that we installed are ours.
        let mut installed = istio.clone();
        installed.annotations_mut().insert(DEFINITIONS.to_owned(), "0.0.1".to_owned());
        assert!(matches!(decide(&istio, &installed), Decision::Upgrade(_)));
        let mut kept = live(Some("0.0.1"), &["v1alpha1"]);
        kept.annotations_mut().insert(UPGRADE_DEFINITIONS.to_owned(), "disabled".to_owned());
        assert_eq!(decide(&ours(), &kept), Decision::LeaveAlone);
        assert_eq!(MeshInstallation::crd().spec.group, GROUP);
    }

    #[test]
    fn versions_that_objects_are_stored_in_are_served_until_none_is() {
        let live = with_older_storage(live(Some("0.0.1"), &["v1alpha0", "v1alpha1"]));
        let steps = steps(&live);
        assert!(steps.write && steps.migrate);
        let bridge = steps.bridge.unwrap();
        let versions: Vec<_> =
            bridge.spec.versions.iter().map(|v| (v.name.as_str(), v.storage, v.served)).collect();
        assert_eq!(versions, [("v1alpha1", true, true), ("v1alpha0", false, true)]);
        assert_eq!(steps.target.spec.versions.len(), 1);
    }

    #[test]
    fn an_interrupted_migration_is_finished() {
        let version = env!("CARGO_PKG_VERSION");
        let bridged = live(Some(version), &["v1alpha0", "v1alpha1"]);
        let mut old = bridged.clone();
        let mut dropped = old.spec.versions[0].clone();
        "v1alpha0".clone_into(&mut dropped.name);
        dropped.storage = false;
        old.spec.versions.push(dropped);
        let steps = steps(&old);
        assert!(steps.migrate && steps.bridge.is_some());
    }

    #[test]
    fn what_helm_wrote_stays() {
        let mut live = live(Some("0.0.1"), &["v1alpha1"]);
        live.labels_mut().insert("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned());
        for (key, value) in [("helm.sh/resource-policy", "keep"), ("example.com/x", "y")] {
            live.annotations_mut().insert(key.to_owned(), value.to_owned());
        }
        let target = steps(&live).target;
        assert_eq!(target.annotations()["helm.sh/resource-policy"], "keep");
        assert_eq!(target.labels()["app.kubernetes.io/managed-by"], "Helm");
        assert!(!target.annotations().contains_key("example.com/x"));
        assert_eq!(target.annotations()[DEFINITIONS], env!("CARGO_PKG_VERSION"));
    }
}
