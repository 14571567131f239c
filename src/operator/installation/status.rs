//! What became of an installation: pure findings from the applied objects, and the one write.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentCondition},
        core::v1::Service,
    },
    jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::json;

use super::{Error, validate::Validated};
use crate::{
    api::meshwright::{
        GatewayStatus, MeshInstallation, MeshInstallationStatus, ProxyCount, labels::MANAGER,
        status::MESH_CONFIGURED,
    },
    operator::{
        conditions::{self, Finding},
        context::Context,
        objects::{Applied, Objects},
    },
    webhook::validate::names::Tags,
};

/// A status as computed.
#[derive(Clone, Debug)]
pub struct Report {
    pub version: String,
    pub findings: Vec<Finding>,
    pub proxies: ProxyCount,
    pub gateways: Vec<GatewayStatus>,
}

/// The status of an installation whose objects are applied.
pub fn report(
    installation: &MeshInstallation,
    valid: &Validated,
    applied: &Objects<Applied>,
    proxies: ProxyCount,
) -> Report {
    let (control_planes, gateways): (Vec<_>, Vec<_>) = applied
        .deployments
        .iter()
        .partition(|d| d.name_any() == valid.control_plane.name && in_namespace(d, valid));
    let control_plane = Rollout::of(&control_planes);
    let gateway = Rollout::of(&gateways);
    let parts = [
        control_plane.finding("ControlPlaneReady", "the control plane"),
        gateway.finding("GatewaysReady", "gateways"),
        webhook(applied, &valid.tags),
    ];
    let mut findings = overall(&parts, &[&control_plane, &gateway]);
    findings.extend(parts);
    // What stays in force until the new version runs everywhere.
    let before = installation.status.as_ref().map(|s| s.version.clone()).unwrap_or_default();
    let settled = control_plane.is_settled() || before.is_empty();
    Report {
        version: if settled { valid.version.clone() } else { before },
        findings,
        proxies,
        gateways: gateway_addresses(valid, &applied.services),
    }
}

/// The status of an installation that could not be brought about: what was known, and the error.
pub fn failed(installation: &MeshInstallation, error: &Error) -> Report {
    let before = installation.status.clone().unwrap_or_default();
    let message = error.to_string();
    let mut findings = vec![
        Finding::new("Ready", false, error.kind(), message.clone()),
        Finding::new("Progressing", false, error.kind(), "nothing moves until this is solved"),
        Finding::new("Degraded", true, error.kind(), message),
    ];
    let known = [
        ("ControlPlaneReady", "NotChecked"),
        ("GatewaysReady", "NotChecked"),
        ("WebhookReady", "NotChecked"),
    ];
    findings.extend(known.map(|(kind, reason)| Finding {
        kind,
        status: None,
        reason,
        message: "see Degraded".to_owned(),
    }));
    Report { version: before.version, findings, proxies: before.proxies, gateways: before.gateways }
}

/// Writes the status if it is not there yet, and tells of it where readiness changed.
pub async fn write(
    context: &Context,
    installation: &MeshInstallation,
    report: Report,
) -> Result<(), Error> {
    let before = installation.status.clone().unwrap_or_default();
    let generation = installation.metadata.generation;
    let status = MeshInstallationStatus {
        observed_generation: generation,
        version: report.version,
        conditions: conditions::merge(
            &before.conditions,
            report.findings,
            generation,
            Timestamp::now(),
        ),
        proxies: report.proxies,
        gateways: report.gateways,
        rollout: before.rollout.clone(),
        certificates: before.certificates.clone(),
    };
    // The control plane's condition is its own: it is not written here, and its changes are no news.
    let mut ours = before.clone();
    ours.conditions.retain(|condition| condition.type_ != MESH_CONFIGURED);
    if installation.status.is_some() && ours == status {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": "meshwright.dev/v1alpha1",
        "kind": "MeshInstallation",
        "metadata": {"name": installation.name_any()},
        "status": status,
    });
    let api = Api::<MeshInstallation>::all(context.client.clone());
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&installation.name_any(), &params, &Patch::Apply(patch))
        .await
        .map_err(|error| Error::Status(Box::new(error)))?;
    announce(context, installation, &before, &status).await;
    Ok(())
}

/// An event for each change of readiness and of its reason.
async fn announce(
    context: &Context,
    installation: &MeshInstallation,
    before: &MeshInstallationStatus,
    after: &MeshInstallationStatus,
) {
    let find = |status: &MeshInstallationStatus| {
        status.conditions.iter().find(|c| c.type_ == "Ready").cloned()
    };
    let (Some(ready), previous) = (find(after), find(before)) else { return };
    let same = previous
        .is_some_and(|p| (p.status, p.reason) == (ready.status.clone(), ready.reason.clone()));
    if same {
        return;
    }
    let bad = after.conditions.iter().any(|c| c.type_ == "Degraded" && c.status == "True");
    let event = Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: ready.reason,
        note: Some(ready.message),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    context.publish(installation, event).await;
}

fn in_namespace(deployment: &Deployment, valid: &Validated) -> bool {
    deployment.namespace().as_deref() == Some(valid.namespace.as_str())
}

fn webhook(applied: &Objects<Applied>, tags: &Tags) -> Finding {
    let trusted = applied.mutating_webhooks.iter().flat_map(|w| w.webhooks.iter().flatten());
    if trusted.clone().count() > 0 && trusted.clone().all(|w| w.client_config.ca_bundle.is_some()) {
        let waits = |(tag, holder): &(String, String)| {
            format!("; tag {tag} waits for MeshInstallation {holder} to give it up")
        };
        let waiting: String = tags.waiting.iter().map(waits).collect();
        Finding::new("WebhookReady", true, "Configured", format!("pods are injected{waiting}"))
    } else {
        Finding::new("WebhookReady", false, "NoCertificate", "the webhook has no certificate yet")
    }
}

/// `Ready`, `Progressing` and `Degraded`, from the parts.
fn overall(parts: &[Finding], rollouts: &[&Rollout]) -> Vec<Finding> {
    let waiting: Vec<_> = parts.iter().filter(|part| part.status != Some(true)).collect();
    let broken: Vec<_> = rollouts.iter().flat_map(|r| r.broken.iter().cloned()).collect();
    let moving: Vec<_> = rollouts.iter().flat_map(|r| r.moving.iter().cloned()).collect();
    let ready = if waiting.is_empty() {
        Finding::new("Ready", true, "Ready", "the mesh works")
    } else {
        let messages: Vec<_> = waiting.iter().map(|part| part.message.as_str()).collect();
        let reason = if broken.is_empty() { "Waiting" } else { "Broken" };
        Finding::new("Ready", false, reason, messages.join("; "))
    };
    let progressing = if moving.is_empty() {
        Finding::new("Progressing", false, "Settled", "everything is as the spec says")
    } else {
        Finding::new("Progressing", true, "RollingOut", moving.join("; "))
    };
    let degraded = if broken.is_empty() {
        Finding::new("Degraded", false, "AsExpected", "nothing is wrong")
    } else {
        Finding::new("Degraded", true, "Broken", broken.join("; "))
    };
    vec![ready, progressing, degraded]
}

/// How far some Deployments are.
#[derive(Debug, Default)]
struct Rollout {
    total: usize,
    moving: Vec<String>,
    broken: Vec<String>,
    unavailable: Vec<String>,
}

impl Rollout {
    fn of(deployments: &[&Deployment]) -> Self {
        let mut rollout = Self { total: deployments.len(), ..Self::default() };
        for deployment in deployments {
            rollout.add(deployment);
        }
        rollout
    }

    fn add(&mut self, deployment: &Deployment) {
        let name =
            format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any());
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let status = deployment.status.clone().unwrap_or_default();
        let seen = status.observed_generation >= deployment.metadata.generation;
        let updated = if seen { status.updated_replicas.unwrap_or(0) } else { 0 };
        let available = status.available_replicas.unwrap_or(0);
        if available < wanted {
            self.unavailable.push(format!("{name}: {available} of {wanted} available"));
        }
        let old_ones = status.replicas.unwrap_or(0) > updated;
        if !seen || updated < wanted || available < wanted || old_ones {
            self.moving.push(format!("{name}: {updated} of {wanted} updated"));
        }
        let failing = |c: &&DeploymentCondition| {
            (c.type_ == "Progressing" && c.status == "False")
                || (c.type_ == "ReplicaFailure" && c.status == "True")
        };
        if let Some(failure) = status.conditions.iter().flatten().find(failing) {
            let message = failure.message.as_deref().unwrap_or_default();
            self.broken.push(format!("{name}: {message}"));
        }
    }

    fn is_settled(&self) -> bool {
        self.moving.is_empty()
    }

    fn finding(&self, kind: &'static str, what: &str) -> Finding {
        match self.unavailable.first() {
            None if self.total == 0 => Finding::new(kind, true, "NoneWanted", format!("no {what}")),
            None => Finding::new(kind, true, "Available", "all replicas are available"),
            Some(_) => Finding::new(kind, false, "Unavailable", self.unavailable.join("; ")),
        }
    }
}

fn gateway_addresses(valid: &Validated, services: &[Service]) -> Vec<GatewayStatus> {
    let find = |name: &str, namespace: &str| {
        services
            .iter()
            .find(|s| s.name_any() == name && s.namespace().as_deref() == Some(namespace))
    };
    let status = |gateway: &crate::api::meshwright::Gateway| GatewayStatus {
        name: gateway.name.clone(),
        namespace: gateway.namespace.clone(),
        address: find(&gateway.name, &gateway.namespace).and_then(address).unwrap_or_default(),
    };
    valid.gateways.iter().map(status).collect()
}

/// Where a Service is reached from outside, or from inside where that is all it is for.
pub fn address(service: &Service) -> Option<String> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return spec.cluster_ip.clone().filter(|ip| !ip.is_empty() && ip != "None");
    }
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
    ingress.ip.clone().or_else(|| ingress.hostname.clone())
}
