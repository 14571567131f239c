//! The name of what a pod belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Name of the Deployment, StatefulSet, Job, … that owns a pod, or of the pod itself.
pub fn workload_name(pod: &ObjectMeta) -> String {
    let owner = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else {
        let name = pod.name.as_deref().or(pod.generate_name.as_deref()).unwrap_or_default();
        return name.trim_end_matches('-').to_owned();
    };
    let hash = pod.labels.as_ref().and_then(|labels| labels.get("pod-template-hash"));
    match (owner.kind.as_str(), hash) {
        // A ReplicaSet of a Deployment is named after it and the hash of its template.
        ("ReplicaSet", Some(hash)) => {
            let suffix = format!("-{hash}");
            owner.name.strip_suffix(&suffix).unwrap_or(&owner.name).to_owned()
        }
        _ => owner.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn owned(kind: &str, name: &str, hash: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            generate_name: Some("web-abc-".to_owned()),
            labels: hash.map(|hash| [("pod-template-hash".to_owned(), hash.to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                kind: kind.to_owned(),
                name: name.to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn names() {
        assert_eq!(workload_name(&owned("ReplicaSet", "web-5d4f", Some("5d4f"))), "web");
        assert_eq!(workload_name(&owned("ReplicaSet", "alone", None)), "alone");
        assert_eq!(workload_name(&owned("StatefulSet", "db", None)), "db");
        let bare = ObjectMeta { generate_name: Some("run-".to_owned()), ..ObjectMeta::default() };
        assert_eq!(workload_name(&bare), "run");
    }
}
