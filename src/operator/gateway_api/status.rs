//! Addresses and the condition `Programmed` of a Gateway. The control plane, as another field manager,
//! writes what follows from listeners: `Accepted`. Only where there is no control plane to do so, it
//! is written here.

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::Error;
use crate::{
    api::{
        gateway::{Gateway, listener::GatewayAddress},
        meshwright::labels::MANAGER,
    },
    operator::{
        conditions::{self, Finding},
        context::Context,
        installation::status::address,
        objects::{Applied, Objects},
    },
};

/// What became of a Gateway.
pub(super) struct Report {
    addresses: Vec<GatewayAddress>,
    findings: Vec<Finding>,
}

/// From its applied objects.
pub(super) fn report(applied: &Objects<Applied>) -> Report {
    let address = applied.services.first().and_then(address);
    let available = applied.deployments.iter().all(|deployment| {
        deployment.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0) > 0
    });
    let programmed = match (&address, available) {
        (None, _) => Finding::new(
            "Programmed",
            false,
            "AddressNotAssigned",
            "the Service waits for a load balancer's address",
        ),
        (_, false) => {
            Finding::new("Programmed", false, "Pending", "no pod of the gateway is available yet")
        }
        (Some(_), true) => {
            Finding::new("Programmed", true, "Programmed", "the gateway takes traffic")
        }
    };
    Report {
        addresses: address.into_iter().map(gateway_address).collect(),
        findings: vec![programmed],
    }
}

/// For a Gateway that nobody serves.
pub(super) fn no_installation(revision: &str) -> Report {
    let message = format!("there is no MeshInstallation with revision {revision}");
    Report {
        addresses: Vec::new(),
        findings: vec![
            Finding::new("Accepted", false, "Pending", message.clone()),
            Finding::new("Programmed", false, "Pending", message),
        ],
    }
}

fn gateway_address(value: String) -> GatewayAddress {
    let is_ip = value.parse::<std::net::IpAddr>().is_ok();
    let kind = if is_ip { "IPAddress" } else { "Hostname" };
    GatewayAddress { kind: Some(kind.to_owned()), value: Some(value) }
}

/// Writes the status unless it is there already.
pub(super) async fn write(
    context: &Context,
    gateway: &Gateway,
    report: Report,
) -> Result<(), Error> {
    let before = gateway.status.clone().unwrap_or_default();
    let generation = gateway.metadata.generation;
    let wanted =
        conditions::merge(&before.conditions, report.findings, generation, Timestamp::now());
    let there = wanted.iter().all(|condition| before.conditions.contains(condition));
    if there && before.addresses == report.addresses {
        return Ok(());
    }
    let (name, namespace) = (gateway.name_any(), gateway.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "status": {"addresses": report.addresses, "conditions": wanted},
    });
    let gateways = Api::<Gateway>::namespaced(context.client.clone(), &namespace);
    let params = PatchParams::apply(MANAGER).force();
    gateways
        .patch_status(&name, &params, &Patch::Apply(patch))
        .await
        .map(drop)
        .map_err(|error| Error::Status(Box::new(error)))
}
