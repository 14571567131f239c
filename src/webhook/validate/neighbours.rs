//! What installations of one cluster must have in common: their pods talk to each other.

use kube::ResourceExt;

use super::names::is_older;
use crate::{
    api::meshwright::MeshInstallation,
    diagnostic::{Diagnostic, ObjectRef},
};

/// Differences to older installations with which pods of both could not talk to each other. All
/// control planes sign with the key of one Secret; they must also agree on what is a pod's identity,
/// which each expects of the pods of the others, and on the names of Services.
pub(super) fn check(
    about: &ObjectRef,
    installation: &MeshInstallation,
    others: &[&MeshInstallation],
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let spec = &installation.spec;
    for other in others.iter().filter(|other| is_older(other, installation)) {
        let name = other.name_any();
        if other.spec.trust_domain != spec.trust_domain {
            let message = format!(
                "MeshInstallation {name} has trust domain {}, and pods of one revision would refuse those of the other: use the same",
                other.spec.trust_domain
            );
            found.push(Diagnostic::error(about, "spec.trustDomain", "TrustDomainDiffers", message));
        }
        if other.spec.cluster_domain != spec.cluster_domain {
            let message = format!(
                "MeshInstallation {name} says that Services of this cluster end in {}: use the same",
                other.spec.cluster_domain
            );
            found.push(Diagnostic::error(
                about,
                "spec.clusterDomain",
                "ClusterDomainDiffers",
                message,
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;
    use crate::api::meshwright::MeshInstallationSpec;

    #[test]
    fn the_younger_one_must_fit() {
        let make = |name: &str, second: i64, trust_domain: &str| {
            let spec = MeshInstallationSpec {
                revision: name.to_owned(),
                trust_domain: trust_domain.to_owned(),
                ..MeshInstallationSpec::default()
            };
            let mut made = MeshInstallation::new(name, spec);
            made.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
            made
        };
        let (old, new) = (make("old", 1, "cluster.local"), make("new", 2, "prod.test"));
        let reasons = |one: &MeshInstallation| -> Vec<_> {
            let about = super::super::installation::object_ref(one);
            check(&about, one, &[&old, &new]).into_iter().map(|f| (f.path, f.reason)).collect()
        };
        assert_eq!(reasons(&old), []);
        assert_eq!(reasons(&new), [("spec.trustDomain".to_owned(), "TrustDomainDiffers")]);
    }
}
