//! What became of an installation: pure findings from the applied objects, and the one write.

mod parts;
pub mod rollout;
pub mod trouble;

use k8s_openapi::{
    api::core::v1::Service, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp,
};
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::ApiResource,
    runtime::events::{Event, EventType},
};
use serde_json::json;

use super::{Error, certificates, validate::Validated};
use crate::{
    api::meshwright::{
        CertificateStatus, GatewayStatus, MeshInstallation, MeshInstallationStatus, ProxyCount,
        labels::MANAGER, status::MESH_CONFIGURED,
    },
    operator::{
        apply,
        conditions::{self, Finding},
        context::Context,
        fleet::Summary,
        gateway_workload::addresses,
        objects::{Applied, Objects},
        rollout::mention,
    },
};
use trouble::Trouble;

/// Conditions whose changes are events.
const TOLD: [&str; 2] = ["Ready", "Degraded"];

/// A status as computed.
#[derive(Clone, Debug)]
pub struct Report {
    pub version: String,
    pub findings: Vec<Finding>,
    pub proxies: ProxyCount,
    pub gateways: Vec<GatewayStatus>,
    pub certificates: Vec<CertificateStatus>,
}

/// Conditions that stay as they were while nobody can tell.
const KEPT: [&str; 2] = ["ProxiesReady", "ProxiesSupported"];

/// All that a status says something about.
pub(super) struct Facts<'a> {
    pub valid: &'a Validated,
    pub applied: &'a Objects<Applied>,
    /// What could not be applied.
    pub failures: &'a [apply::Error],
    /// What could not be read.
    pub unread: &'a [apply::Error],
    pub troubles: &'a [Trouble],
    /// None while they are not known as a whole.
    pub proxies: Option<&'a Summary>,
    /// Those of the mesh itself.
    pub certificates: Vec<CertificateStatus>,
    /// Fields of the spec that this version does not know.
    pub unknown_fields: Vec<String>,
}

/// The status of an installation whose objects are applied, as far as they could be.
pub(super) fn report(before: &MeshInstallationStatus, facts: Facts<'_>, now: Timestamp) -> Report {
    let (mut findings, settled) = parts::findings(&facts);
    findings.push(spec_accepted(&facts));
    findings.push(certificates::finding(&facts.certificates, now));
    // What applications do to their pods does not make the mesh less ready.
    findings.extend(facts.proxies.into_iter().flat_map(Summary::findings));
    // What stays in force until the new version runs everywhere.
    let is_new = settled || before.version.is_empty();
    Report {
        version: if is_new { facts.valid.version.clone() } else { before.version.clone() },
        findings,
        gateways: gateway_addresses(&facts),
        proxies: facts.proxies.map_or_else(|| before.proxies.clone(), |all| all.count.clone()),
        certificates: with_proxies(before, facts),
    }
}

/// Whether every field of the spec works.
fn spec_accepted(facts: &Facts<'_>) -> Finding {
    const KIND: &str = "SpecAccepted";
    let text = |found: &[crate::diagnostic::Diagnostic]| {
        let sentence = |d: &crate::diagnostic::Diagnostic| format!("{}: {}", d.path, d.message);
        found.iter().map(sentence).collect::<Vec<_>>().join("; ")
    };
    let valid = facts.valid;
    if !valid.problems.is_empty() {
        return Finding::new(KIND, false, "Invalid", text(&valid.problems));
    }
    if !facts.unknown_fields.is_empty() {
        let message = format!(
            "this version of Meshwright does not know {}: they have no effect until the operator is of a version that does",
            facts.unknown_fields.join(", ")
        );
        return Finding::new(KIND, false, "UnknownFields", message);
    }
    if !valid.warnings.is_empty() {
        return Finding::new(KIND, true, "Warnings", text(&valid.warnings));
    }
    Finding::new(KIND, true, "Valid", "every field is in force or on its way")
}

/// The status of an installation that could not be brought about: what was known, and the error.
pub fn failed(before: &MeshInstallationStatus, error: &Error) -> Report {
    let message = error.to_string();
    let mut findings = vec![
        Finding::new("Ready", false, error.kind(), message.clone()),
        Finding::new("Progressing", false, error.kind(), "nothing moves until this is solved"),
        Finding::new("Degraded", true, error.kind(), message.clone()),
        Finding::new("SpecAccepted", false, error.kind(), message),
    ];
    let unchecked = ["ControlPlaneReady", "GatewaysReady", "WebhookReady"].map(|kind| Finding {
        kind,
        status: None,
        reason: "NotChecked",
        message: "see Degraded".to_owned(),
    });
    findings.extend(unchecked);
    let MeshInstallationStatus { version, proxies, gateways, certificates, .. } = before.clone();
    Report { version, findings, proxies, gateways, certificates }
}

/// Writes the status if it is not there yet, and tells of it where readiness changed. `before` is
/// what the API server has.
pub async fn write(
    context: &Context,
    installation: &MeshInstallation,
    before: &MeshInstallationStatus,
    report: Report,
) -> Result<(), Error> {
    let generation = installation.metadata.generation;
    let rollout = context.rollouts.or(&installation.name_any(), before.rollout.as_ref());
    let mut findings = report.findings;
    mention(&mut findings, rollout.as_ref());
    let status = MeshInstallationStatus {
        observed_generation: generation,
        version: report.version,
        conditions: merged(&before.conditions, findings, generation),
        proxies: report.proxies,
        gateways: report.gateways,
        rollout,
        certificates: report.certificates,
    };
    // The control plane's condition is its own: it is not written here, and its changes are no news.
    let mut ours = before.clone();
    ours.conditions.retain(|condition| condition.type_ != MESH_CONFIGURED);
    if ours == status && *before != MeshInstallationStatus::default() {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": "meshwright.dev/v1alpha1",
        "kind": "MeshInstallation",
        "metadata": {"name": installation.name_any()},
        "status": status,
    });
    // The answer need not be readable: the status may be just about that.
    let resource = ApiResource::erase::<MeshInstallation>(&());
    let api = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
    let params = PatchParams::apply(MANAGER).force();
    api.patch_status(&installation.name_any(), &params, &Patch::Apply(patch))
        .await
        .map_err(|error| Error::Status(Box::new(error)))?;
    for kind in TOLD {
        announce(context, installation, kind, [before, &status]).await;
    }
    Ok(())
}

fn merged(before: &[Condition], findings: Vec<Finding>, generation: Option<i64>) -> Vec<Condition> {
    let mut merged = conditions::merge(before, findings, generation, Timestamp::now());
    for kept in before.iter().filter(|condition| KEPT.contains(&condition.type_.as_str())) {
        if merged.iter().all(|condition| condition.type_ != kept.type_) {
            merged.push(kept.clone());
        }
    }
    merged
}

/// All certificates by when they end. That of the proxies stays as it was while they are not known.
fn with_proxies(before: &MeshInstallationStatus, facts: Facts<'_>) -> Vec<CertificateStatus> {
    let mut all = facts.certificates;
    match facts.proxies {
        Some(proxies) => all.extend(proxies.certificate()),
        None => all.extend(before.certificates.iter().find(|c| c.name == "proxies").cloned()),
    }
    all.sort_by(|a, b| (&a.not_after, &a.name).cmp(&(&b.not_after, &b.name)));
    all
}

/// An event for each change of a condition and of its reason.
async fn announce(
    context: &Context,
    installation: &MeshInstallation,
    kind: &str,
    [before, after]: [&MeshInstallationStatus; 2],
) {
    let find = |status: &MeshInstallationStatus| {
        status.conditions.iter().find(|c| c.type_ == kind).cloned()
    };
    let (Some(now), previous) = (find(after), find(before)) else { return };
    let same =
        previous.as_ref().is_some_and(|p| (&p.status, &p.reason) == (&now.status, &now.reason));
    let bad = after.conditions.iter().any(|c| c.type_ == "Degraded" && c.status == "True");
    // What is told of `Ready` need not be said twice.
    if same || (kind == "Degraded" && (!bad || find_ready(after) == Some(&now.reason))) {
        return;
    }
    let event = Event {
        type_: if bad { EventType::Warning } else { EventType::Normal },
        reason: now.reason,
        note: Some(now.message.chars().take(LONGEST_NOTE).collect()),
        action: "Reconcile".to_owned(),
        secondary: None,
    };
    context.publish(installation, event).await;
}

/// Of an event, as the API server takes it.
const LONGEST_NOTE: usize = 1000;

fn find_ready(status: &MeshInstallationStatus) -> Option<&String> {
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready" && c.status != "True");
    ready.map(|condition| &condition.reason)
}

fn gateway_addresses(facts: &Facts<'_>) -> Vec<GatewayStatus> {
    let services = &facts.applied.services;
    let status = |(namespace, name): &(String, String)| {
        let service = services
            .iter()
            .find(|s| s.name_any() == *name && s.namespace().as_deref() == Some(namespace));
        GatewayStatus {
            name: name.clone(),
            namespace: namespace.clone(),
            address: service.and_then(address).unwrap_or_default(),
        }
    };
    facts.valid.listed.iter().map(status).collect()
}

/// Where a Service is reached from outside, or from inside where that is all it is for.
pub fn address(service: &Service) -> Option<String> {
    addresses(service).into_iter().next()
}
