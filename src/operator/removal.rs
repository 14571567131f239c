//! Takes away what was made for an installation that was deleted, in an order in which nothing ever
//! waits for something that is gone:
//!
//! 1. names that other installations ask for go over to them;
//! 2. the webhook configurations, so that no pod creation asks for a revision that leaves;
//! 3. while pods have a proxy of the revision, the rest stays: whoever deleted the installation past
//!    the webhook that refuses it cannot take that back, and the traffic of these pods must go on;
//! 4. Deployments, and when the control plane's pods have ended, all the rest;
//! 5. after the last installation, what the mesh has in common ([`leftovers`]).
//!
//! Each call of [`proceed`] does what can be done now, and says what it waits for.

pub mod leftovers;
pub mod uninstall;

use std::time::Duration;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::Pod,
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::ListParams, core::PartialObjectMeta};

use super::{
    apply::{self, Changes},
    conditions::Finding,
    installation::{
        FINALIZER,
        handover::{self, installations, selected},
        selector, status,
    },
    platform::Platform,
};
use crate::{
    api::meshwright::{MeshInstallation, labels::ALLOW_REMOVAL},
    webhook::validate::deletion::{Remaining, is_allowed, remaining},
};

/// So long may another installation take to select the names that it asks for. It may be invalid and
/// never do so.
const HANDOVER: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action}: {source}")]
    Api { action: &'static str, source: Box<kube::Error> },
    #[error(transparent)]
    Objects(#[from] apply::Error),
}

fn failed(action: &'static str) -> impl Fn(kube::Error) -> Error {
    move |source| Error::Api { action, source: Box::new(source) }
}

/// What a removal waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Other installations, to select these names.
    Heirs(Vec<(String, String)>),
    /// These pods, to get a proxy of another revision or to end.
    Proxies(Remaining),
    /// Pods of the control plane, to end.
    ControlPlane,
}

impl Waits {
    /// When to look again.
    pub fn look_again(&self) -> Duration {
        match self {
            // People or their rollouts are at work.
            Self::Proxies(_) => Duration::from_secs(5),
            Self::Heirs(_) | Self::ControlPlane => Duration::from_secs(1),
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Heirs(_) => "WaitingForHeirs",
            Self::Proxies(_) => "WaitingForProxies",
            Self::ControlPlane => "Removing",
        }
    }

    /// In words, with what to do.
    pub fn message(&self) -> String {
        match self {
            Self::Heirs(names) => {
                let each = |(name, heir): &(String, String)| format!("{name} to {heir}");
                let names: Vec<_> = names.iter().map(each).collect();
                format!("names go over to other installations: {}", names.join(", "))
            }
            Self::Proxies(remaining) => format!(
                "no pod is injected any more; the control plane stays for {}; restart them in another revision, or set the annotation {ALLOW_REMOVAL}=true to remove it under them",
                remaining.names()
            ),
            Self::ControlPlane => "the control plane's pods end".to_owned(),
        }
    }
}

/// The status of an installation on its way out.
pub fn report(installation: &MeshInstallation, waits: &Waits) -> status::Report {
    let before = installation.status.clone().unwrap_or_default();
    let message = waits.message();
    let findings = vec![
        Finding::new("Ready", false, "BeingRemoved", message.clone()),
        Finding::new("Progressing", true, waits.reason(), message),
        Finding::new("Degraded", false, "AsExpected", "nothing is wrong"),
    ];
    status::Report {
        version: before.version,
        findings,
        proxies: before.proxies,
        gateways: before.gateways,
        certificates: before.certificates,
    }
}

/// Goes on with the removal of an installation that is being deleted; nothing when it is done.
pub async fn proceed(
    client: &Client,
    namespace: &str,
    installation: &MeshInstallation,
    changes: &mut Changes,
) -> Result<Option<Waits>, Error> {
    let name = installation.name_any();
    let selector = selector(&name);
    let all = installations(client).await.map_err(failed("list MeshInstallations"))?;
    let selected = selected(client).await.map_err(failed("list webhook configurations"))?;
    let heirs = handover::kept(installation, &all, &selected);
    if !heirs.is_empty() && left_for(installation) < HANDOVER {
        return Ok(Some(Waits::Heirs(heirs)));
    }
    apply::orphans::<MutatingWebhookConfiguration>(client, &selector, &[], changes).await?;
    apply::orphans::<ValidatingWebhookConfiguration>(client, &selector, &[], changes).await?;
    if !is_allowed(installation) {
        let remaining = remaining(client, installation).await.map_err(failed("list pods"))?;
        if !remaining.is_none() {
            return Ok(Some(Waits::Proxies(remaining)));
        }
    }
    apply::orphans::<HorizontalPodAutoscaler>(client, &selector, &[], changes).await?;
    apply::orphans::<PodDisruptionBudget>(client, &selector, &[], changes).await?;
    apply::orphans::<Deployment>(client, &selector, &[], changes).await?;
    // A control plane that still runs would make anew what is taken away after it, and needs its
    // rights to give up its lease.
    if runs(client, namespace, &Platform::control_plane_name(&installation.spec.revision)).await? {
        return Ok(Some(Waits::ControlPlane));
    }
    changes.extend(apply::delete_all(client, &selector).await?);
    if is_last(client, &name).await? {
        leftovers::of_mesh(client, namespace, changes).await?;
    }
    Ok(None)
}

/// Whether no other installation needs what the mesh has in common. One that cannot be read does; one
/// that was released and waits for somebody else's finalizer does not.
async fn is_last(client: &Client, name: &str) -> Result<bool, Error> {
    let api = Api::<MeshInstallation>::all(client.clone());
    let list = api.list_metadata(&ListParams::default()).await;
    let list = list.map_err(failed("list MeshInstallations"))?;
    let needs = |other: &PartialObjectMeta<MeshInstallation>| {
        other.metadata.deletion_timestamp.is_none()
            || other.finalizers().iter().any(|held| held == FINALIZER)
    };
    Ok(!list.items.iter().any(|other| other.name_any() != name && needs(other)))
}

/// Since when the installation is on its way out.
fn left_for(installation: &MeshInstallation) -> Duration {
    let Some(since) = &installation.metadata.deletion_timestamp else { return Duration::ZERO };
    // A clock behind the API server's gives a negative time.
    Duration::try_from(Timestamp::now().duration_since(since.0)).unwrap_or_default()
}

/// Whether there are pods with this label `app`.
async fn runs(client: &Client, namespace: &str, app: &str) -> Result<bool, Error> {
    let params = ListParams::default().labels(&format!("app={app}")).limit(1);
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list_metadata(&params).await;
    Ok(!pods.map_err(failed("list pods"))?.items.is_empty())
}
