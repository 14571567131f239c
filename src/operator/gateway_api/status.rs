//! Addresses and the condition `Programmed` of a Gateway. The control plane, as another field manager,
//! writes what follows from listeners: `Accepted`. Only what it cannot know is written here: that
//! there is no control plane, or that parameters or addresses are not what they should be.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{Error, apply::refusal, children::Facts};
use crate::{
    api::{
        gateway::{Gateway, GatewayStatus, OPERATOR_REASONS, listener::GatewayAddress},
        meshwright::labels::MANAGER,
    },
    operator::{
        conditions::{self, Finding},
        context::Context,
    },
};

/// In the condition `Accepted`, when the operator has nothing against it any more. It cannot just
/// take its word back: what the control plane wrote before it would be half a condition.
const HANDED_OVER: &str = "the control plane looks at it next";

/// What became of a Gateway.
pub(super) struct Report {
    addresses: Vec<GatewayAddress>,
    findings: Vec<Finding>,
}

impl Report {
    fn programmed(found: (bool, &'static str, String), addresses: &[String]) -> Self {
        let (good, reason, message) = found;
        Self {
            addresses: addresses.iter().map(|address| gateway_address(address)).collect(),
            findings: vec![Finding::new("Programmed", good, reason, message)],
        }
    }
}

/// From what is known of its Service and its Deployment; `problems` is what could not be built of it.
pub(super) fn report(
    gateway: &Gateway,
    service: &Facts,
    deployment: &Facts,
    problems: &[String],
) -> Report {
    let addresses = &service.addresses;
    let found = if !problems.is_empty() {
        (false, "Invalid", problems.join("; "))
    } else if let Some(failure) = &deployment.failure
        && deployment.available == 0
    {
        (false, "NoResources", failure.clone())
    } else if addresses.is_empty() {
        let message = "the Service waits for a load balancer's address";
        (false, "AddressNotAssigned", message.to_owned())
    } else if let Some((unmet, asked)) = unmet(gateway, addresses) {
        let found = addresses.join(", ");
        if addresses.len() < asked {
            (false, "AddressNotAssigned", format!("the Service has {found} and waits for {unmet}"))
        } else {
            let message = format!("{unmet} was asked for; the Service got {found}");
            (false, "AddressNotUsable", message)
        }
    } else if deployment.available == 0 {
        let message = match deployment.wanted {
            0 => "no pod is asked for: spec.replicas of the Deployment is 0",
            _ => "no pod of the gateway is available yet",
        };
        (false, "Pending", message.to_owned())
    } else {
        (true, "Programmed", "the gateway takes traffic".to_owned())
    };
    Report::programmed(found, addresses)
}

/// The first address that was asked for and is not there, and how many were asked for.
fn unmet<'a>(gateway: &'a Gateway, addresses: &[String]) -> Option<(&'a str, usize)> {
    let asked = gateway.spec.addresses.iter().filter_map(|address| address.value.as_deref());
    let asked: Vec<_> = asked.filter(|value| !value.is_empty()).collect();
    let unmet = asked.iter().find(|asked| {
        let same = |found: &String| {
            let ip = |text: &str| text.parse::<std::net::IpAddr>();
            found == *asked || matches!((ip(found), ip(asked)), (Ok(a), Ok(b)) if a == b)
        };
        !addresses.iter().any(same)
    });
    unmet.map(|unmet| (*unmet, asked.len()))
}

/// Of a Gateway behind a Service that somebody else runs.
pub(super) fn behind(name: &str, service: Option<&[String]>) -> Report {
    let (found, addresses) = match service {
        None => {
            let message = format!("spec.addresses: there is no Service {name} in its namespace");
            ((false, "AddressNotUsable", message), &[][..])
        }
        Some([]) => {
            let message = format!("Service {name} has no address yet");
            ((false, "AddressNotAssigned", message), &[][..])
        }
        Some(addresses) => {
            let message = format!("served by the pods of Service {name}");
            ((true, "Programmed", message), addresses)
        }
    };
    Report::programmed(found, addresses)
}

/// For a Gateway that nobody serves.
pub(super) fn no_installation(revision: &str) -> Report {
    let message = format!("there is no MeshInstallation with revision {revision}");
    refused("Pending", "Pending", message, Vec::new())
}

/// For a Gateway that asks for what cannot be. What runs goes on.
pub(super) fn invalid(gateway: &Gateway, reason: &'static str, message: String) -> Report {
    refused(reason, "Invalid", message, before(gateway))
}

fn refused(
    accepted: &'static str,
    programmed: &'static str,
    message: String,
    addresses: Vec<GatewayAddress>,
) -> Report {
    Report {
        addresses,
        findings: vec![
            Finding::new("Accepted", false, accepted, message.clone()),
            Finding::new("Programmed", false, programmed, message),
        ],
    }
}

/// For a Gateway whose objects could not be written.
pub(super) fn failed(gateway: &Gateway, error: &Error) -> Report {
    let message = error.to_string();
    let reason = match refusal(error) {
        _ if matches!(error, Error::Apply(super::apply::Error::Taken(_))) => "Invalid",
        Some((403, said)) if said.contains("quota") => "NoResources",
        Some((400 | 422, _)) => "Invalid",
        _ => "Pending",
    };
    Report {
        addresses: before(gateway),
        findings: vec![Finding::new("Programmed", false, reason, message)],
    }
}

/// For a Gateway that is another implementation's now: we have nothing to say.
pub(super) fn nothing() -> Report {
    Report { addresses: Vec::new(), findings: Vec::new() }
}

fn before(gateway: &Gateway) -> Vec<GatewayAddress> {
    gateway.status.as_ref().map(|status| status.addresses.clone()).unwrap_or_default()
}

fn gateway_address(value: &str) -> GatewayAddress {
    let is_ip = value.parse::<std::net::IpAddr>().is_ok();
    let kind = if is_ip { "IPAddress" } else { "Hostname" };
    GatewayAddress { kind: Some(kind.to_owned()), value: Some(value.to_owned()) }
}

/// `Accepted` goes back to the control plane where the operator had something against it before.
fn hand_over(before: &GatewayStatus, findings: &mut Vec<Finding>) {
    if findings.iter().any(|finding| finding.kind == "Accepted") {
        return;
    }
    let is_ours = |condition: &&Condition| {
        condition.type_ == "Accepted"
            && (OPERATOR_REASONS.contains(&condition.reason.as_str())
                || condition.message == HANDED_OVER)
    };
    if before.conditions.iter().any(|condition| is_ours(&condition)) {
        findings.push(Finding {
            kind: "Accepted",
            status: None,
            reason: "Pending",
            message: HANDED_OVER.to_owned(),
        });
    }
}

/// Writes the status unless it is there already.
pub(super) async fn write(
    context: &Context,
    gateway: &Gateway,
    report: Report,
) -> Result<(), Error> {
    let Report { addresses, mut findings } = report;
    let before = gateway.status.clone().unwrap_or_default();
    let leaves = findings.is_empty();
    if !leaves {
        hand_over(&before, &mut findings);
    }
    let generation = gateway.metadata.generation;
    let wanted = conditions::merge(&before.conditions, findings, generation, Timestamp::now());
    let there = wanted.iter().all(|condition| before.conditions.contains(condition));
    if there && before.addresses == addresses && !leaves {
        return Ok(());
    }
    let (name, namespace) = (gateway.name_any(), gateway.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "status": {"addresses": addresses, "conditions": wanted},
    });
    let gateways = Api::<Gateway>::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(MANAGER).force();
    gateways
        .patch_status(&name, &params, &Patch::Apply(patch))
        .await
        .map(drop)
        .map_err(|error| Error::Status(Box::new(error)))
}
