//! What is to be done about a pod of this node. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerStatus, ObjectReference, Pod};

use crate::{
    api::meshwright::labels::{REDIRECT, STATUS},
    webhook::inject::container::REDIRECT_CONTAINER,
};

/// Flags that are no description of rules. The annotation is in the hands of whoever makes the pod,
/// and what is run with it has rights on the node.
const REFUSED: [&str; 4] = ["--check", "--check-timeout", "--dry-run", "--remove"];

/// Whether a pod's traffic is to be redirected from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With these arguments of `meshwright redirect`.
    Redirect(Vec<String>),
    /// Not ours, and why.
    Leave(&'static str),
    /// It asks for redirection in a way that makes no sense.
    Invalid(String),
}

/// How far the redirection of a pod is, as its own init container sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The init container has not run yet.
    Starting,
    /// It waits for redirection, and has given up that many times.
    Waiting { restarts: i32 },
    /// It has seen that redirection works.
    Done,
}

/// What is known about a pod: of all that the API server says, only this is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub addresses: Vec<IpAddr>,
    pub decision: Decision,
    pub progress: Progress,
    /// Whether somebody makes it anew if it is deleted.
    pub controlled: bool,
    /// It has ended, or is about to.
    pub ending: bool,
}

impl PodView {
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let status = pod.status.as_ref();
        let addresses = status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
        let phase = status.and_then(|status| status.phase.as_deref());
        let owners = metadata.owner_references.as_deref().unwrap_or_default();
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            addresses: addresses.filter_map(|address| address.ip.parse().ok()).collect(),
            decision: decide(pod),
            progress: progress(pod),
            controlled: owners.iter().any(|owner| owner.controller == Some(true)),
            ending: metadata.deletion_timestamp.is_some()
                || matches!(phase, Some("Succeeded" | "Failed")),
        }
    }

    /// Whether it needs redirection and has not seen that it has it.
    pub fn is_waiting(&self) -> bool {
        self.progress != Progress::Done
            && !self.ending
            && matches!(self.decision, Decision::Redirect(_) | Decision::Invalid(_))
    }

    /// As events name it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectReference::default()
        }
    }

    /// How often its init container gave up.
    pub fn restarts(&self) -> i32 {
        match self.progress {
            Progress::Waiting { restarts } => restarts,
            Progress::Starting | Progress::Done => 0,
        }
    }
}

/// Decides about a pod from what injection left in it.
pub fn decide(pod: &Pod) -> Decision {
    let Some(spec) = pod.spec.as_ref() else { return Decision::Leave("it has no spec") };
    if spec.host_network == Some(true) {
        return Decision::Leave("it uses the node's network");
    }
    let annotation = |name: &str| pod.metadata.annotations.as_ref()?.get(name);
    if annotation(STATUS).is_none() {
        return Decision::Leave("it has no sidecar");
    }
    let Some(arguments) = annotation(REDIRECT) else {
        return Decision::Leave("its traffic is not redirected");
    };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let waits = init.iter().any(|container| {
        container.name == REDIRECT_CONTAINER
            && container.args.iter().flatten().any(|argument| argument == "--check")
    });
    if !waits {
        return Decision::Leave("it redirects its traffic by itself");
    }
    match read(arguments) {
        Ok(arguments) => Decision::Redirect(arguments),
        Err(reason) => Decision::Invalid(format!("annotation {REDIRECT}: {reason}")),
    }
}

fn read(annotation: &str) -> Result<Vec<String>, String> {
    let arguments: Vec<String> = serde_json::from_str(annotation)
        .map_err(|error| format!("it must be a JSON list of flags: {error}"))?;
    for argument in &arguments {
        let flag = argument.split('=').next().unwrap_or_default();
        if REFUSED.contains(&flag) {
            return Err(format!("the flag {flag} says nothing about rules; take it out"));
        }
    }
    Ok(arguments)
}

fn progress(pod: &Pod) -> Progress {
    let statuses = pod.status.as_ref().and_then(|status| status.init_container_statuses.as_ref());
    let status = statuses.into_iter().flatten().find(|status| status.name == REDIRECT_CONTAINER);
    status.map_or(Progress::Starting, container_progress)
}

fn container_progress(status: &ContainerStatus) -> Progress {
    let state = status.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref());
    let runs = state.is_some_and(|state| state.running.is_some());
    match ended {
        Some(ended) if ended.exit_code == 0 => Progress::Done,
        None if !runs && status.restart_count == 0 => Progress::Starting,
        _ => Progress::Waiting { restarts: status.restart_count },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod as injection leaves it where the plugin redirects.
    fn injected() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "shop", "name": "cart-0", "uid": "u1",
                "annotations": {STATUS: "{}", REDIRECT: r#"["--exclude-outbound-ports=3306"]"#},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart",
                                     "uid": "r1", "controller": true}],
            },
            "spec": {
                "initContainers": [
                    {"name": REDIRECT_CONTAINER, "args": ["redirect", "--check"]},
                    {"name": "meshwright-proxy", "args": ["agent"]},
                ],
                "containers": [{"name": "app"}],
            },
        })
    }

    fn view(pod: &Value) -> PodView {
        PodView::of(&serde_json::from_value(pod.clone()).unwrap())
    }

    fn changed(change: impl FnOnce(&mut Value)) -> PodView {
        let mut pod = injected();
        change(&mut pod);
        view(&pod)
    }

    #[test]
    fn a_pod_that_waits_for_the_plugin_is_redirected() {
        let view = view(&injected());
        let want = Decision::Redirect(vec!["--exclude-outbound-ports=3306".to_owned()]);
        assert_eq!(view.decision, want);
        assert!(view.controlled && !view.ending);
    }

    #[test]
    fn other_pods_are_left_alone() {
        let by_itself = changed(|pod| {
            pod["spec"]["initContainers"][0]["args"] = json!(["redirect"]);
        });
        let host = changed(|pod| pod["spec"]["hostNetwork"] = json!(true));
        let plain = changed(|pod| pod["metadata"]["annotations"] = json!({"a": "b"}));
        let gateway = changed(|pod| {
            pod["metadata"]["annotations"].as_object_mut().unwrap().remove(REDIRECT);
        });
        for (view, reason) in [
            (by_itself, "it redirects its traffic by itself"),
            (host, "it uses the node's network"),
            (plain, "it has no sidecar"),
            (gateway, "its traffic is not redirected"),
        ] {
            assert_eq!(view.decision, Decision::Leave(reason));
        }
    }

    #[test]
    fn an_annotation_cannot_do_more_than_describe_rules() {
        for annotation in [
            r#"["--remove"]"#,
            r#"["--check"]"#,
            r#"["--check-timeout=9999"]"#,
            r#"["--dry-run=true"]"#,
        ] {
            let view = changed(|pod| pod["metadata"]["annotations"][REDIRECT] = json!(annotation));
            let Decision::Invalid(reason) = view.decision else { panic!("{annotation}") };
            assert!(reason.contains("says nothing about rules"), "{reason}");
        }
        for annotation in ["", "--proxy-port=1", "{}", "[1]"] {
            let view = changed(|pod| pod["metadata"]["annotations"][REDIRECT] = json!(annotation));
            let Decision::Invalid(reason) = view.decision else { panic!("{annotation}") };
            assert!(reason.contains("must be a JSON list of flags"), "{reason}");
        }
    }

    #[test]
    fn progress_is_what_the_init_container_says() {
        let progress = |restarts: i32, state: Value| {
            let statuses = json!([{
                "name": REDIRECT_CONTAINER, "image": "", "imageID": "", "ready": false,
                "restartCount": restarts, "state": state,
            }]);
            changed(|pod| pod["status"] = json!({"initContainerStatuses": statuses})).progress
        };
        let created = json!({"waiting": {"reason": "PodInitializing"}});
        let failed = json!({"terminated": {"exitCode": 1}});
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert_eq!(view(&injected()).progress, Progress::Starting);
        assert_eq!(progress(0, created), Progress::Starting);
        assert_eq!(progress(0, json!({"running": {}})), Progress::Waiting { restarts: 0 });
        assert_eq!(progress(0, failed), Progress::Waiting { restarts: 0 });
        assert_eq!(progress(2, back_off), Progress::Waiting { restarts: 2 });
        assert_eq!(progress(1, json!({"terminated": {"exitCode": 0}})), Progress::Done);
    }

    #[test]
    fn addresses_of_both_families_are_kept() {
        let view = changed(|pod| {
            pod["status"] = json!({"podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]});
        });
        let want: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(view.addresses, want);
    }

    #[test]
    fn pods_that_have_ended_or_are_about_to_are_known() {
        assert!(changed(|pod| pod["status"] = json!({"phase": "Succeeded"})).ending);
        let deleted = json!("2026-11-21T10:00:00Z");
        assert!(changed(|pod| pod["metadata"]["deletionTimestamp"] = deleted).ending);
    }
}
