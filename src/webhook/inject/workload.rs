//! The name of what a pod belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Name of the Deployment, StatefulSet, Job, … that owns a pod, or of the pod itself.
pub fn workload_name(pod: &ObjectMeta) -> String {
    let owner = pod.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let Some(owner) = owner else {
        let name = pod.name.as_deref().or(pod.generate_name.as_deref()).unwrap_or_default();
        return name.trim_end_matches('-').to_owned();
    };
    let label = |key: &str| pod.labels.as_ref()?.get(key);
    let annotation = |key: &str| pod.annotations.as_ref()?.get(key);
    match owner.kind.as_str() {
        // A ReplicaSet of a Deployment is named after it and the hash of its template.
        "ReplicaSet" => label("pod-template-hash")
            .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'))
            .unwrap_or(&owner.name),
        "ReplicationController" => annotation("openshift.io/deployment-config.name")
            .map_or(owner.name.as_str(), String::as_str),
        "Job" => without_schedule(&owner.name),
        _ => &owner.name,
    }
    .to_owned()
}

/// A Job of a CronJob is named after it and the minute for which it was made.
fn without_schedule(job: &str) -> &str {
    let minute = |digits: &str| {
        (8..=11).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    match job.rsplit_once('-') {
        Some((name, digits)) if minute(digits) => name,
        _ => job,
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
        assert_eq!(workload_name(&owned("Job", "backup-29261510", None)), "backup");
        assert_eq!(workload_name(&owned("Job", "import-2024", None)), "import-2024");
        let mut deployed = owned("ReplicationController", "web-3", None);
        assert_eq!(workload_name(&deployed), "web-3");
        let config = ("openshift.io/deployment-config.name".to_owned(), "web".to_owned());
        deployed.annotations = Some([config].into());
        assert_eq!(workload_name(&deployed), "web");
        let bare = ObjectMeta { generate_name: Some("run-".to_owned()), ..ObjectMeta::default() };
        assert_eq!(workload_name(&bare), "run");
    }
}
