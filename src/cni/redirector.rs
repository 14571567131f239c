//! Redirects pods: at the runtime's request, and those that started before anybody could ask.

use std::{path::Path, sync::Arc};

use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::{
    decide::{Decision, PodView},
    ledger::Ledger,
    netns::Namespaces,
    pods::Pods,
    sandbox::{Answer, Notes, Sandbox},
};

/// Name under which events are published.
const REPORTER: &str = "meshwright-cni";

/// What a pod's redirection needs, shared by requests and repair.
pub struct Redirector {
    pub client: Client,
    pub pods: Pods,
    pub namespaces: Namespaces,
    pub notes: Notes,
    pub ledger: Ledger,
    pub counts: Counts,
    recorder: Recorder,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    redirections: Family<Redirection, Counter>,
    pub deletions: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Redirection {
    by: &'static str,
    success: &'static str,
}

impl Counts {
    pub fn register(registry: &mut Registry) -> Self {
        let counts = Self::default();
        let cni = registry.sub_registry_with_prefix("meshwright_cni");
        cni.register("redirections", "Pods redirected", counts.redirections.clone());
        cni.register("deletions", "Pods deleted to be made anew", counts.deletions.clone());
        counts
    }

    fn redirected(&self, by: &'static str, success: bool) {
        let success = if success { "true" } else { "false" };
        self.redirections.get_or_create(&Redirection { by, success }).inc();
    }
}

impl Redirector {
    pub fn new(
        client: Client,
        pods: Pods,
        namespaces: Namespaces,
        notes: Notes,
        counts: Counts,
    ) -> Arc<Self> {
        let recorder = Recorder::new(client.clone(), Reporter::from(REPORTER));
        let ledger = Ledger::default();
        Arc::new(Self { client, pods, namespaces, notes, ledger, counts, recorder })
    }

    /// Answers the plugin about a sandbox that has just got its network.
    pub async fn answer(&self, sandbox: &Sandbox) -> Answer {
        let answer = self.redirect_new(sandbox).await.unwrap_or_else(Answer::Failed);
        let Sandbox { namespace, pod, .. } = sandbox;
        match &answer {
            Answer::Redirected => tracing::info!(namespace, pod, "redirected"),
            Answer::NotOurs(reason) => tracing::debug!(namespace, pod, reason, "left alone"),
            Answer::Failed(error) => tracing::warn!(namespace, pod, error, "not redirected"),
        }
        answer
    }

    async fn redirect_new(&self, sandbox: &Sandbox) -> Result<Answer, String> {
        let Sandbox { namespace, pod, uid, netns, .. } = sandbox;
        let found = self.pods.get(namespace, pod, uid).await;
        let found = found.map_err(|error| format!("the pod cannot be read: {error}"))?;
        // A pod that the kubelet has from a file has another uid in the API server, and no sidecar.
        let Some(view) = found else {
            return Ok(Answer::NotOurs("the API server has no such pod".to_owned()));
        };
        let arguments = match view.decision {
            Decision::Redirect(arguments) => arguments,
            Decision::Leave(reason) => return Ok(Answer::NotOurs(reason.to_owned())),
            Decision::Invalid(reason) => return Err(reason),
        };
        let namespace = self.namespaces.named(netns).ok_or_else(|| {
            format!(
                "{netns} is not in the folder of namespaces: is the chart's cni.netnsDir right?"
            )
        })?;
        if self.ledger.claim(&namespace, 0) {
            self.redirect(&namespace, &arguments, 0, "plugin").await?;
        }
        Ok(Answer::Redirected)
    }

    /// Redirects a namespace that was claimed.
    pub async fn redirect(
        &self,
        namespace: &Path,
        arguments: &[String],
        restarts: i32,
        by: &'static str,
    ) -> Result<(), String> {
        let done = self.namespaces.redirect(namespace, arguments).await;
        self.ledger.settle(namespace, restarts, done.is_ok());
        self.counts.redirected(by, done.is_ok());
        done
    }

    /// Says in an event of the pod what was done about it. That is best effort.
    pub async fn tell(&self, pod: &PodView, kind: EventType, reason: &str, note: String) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Redirect".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &pod.reference()).await {
            tracing::debug!(%error, "event not published");
        }
    }
}
