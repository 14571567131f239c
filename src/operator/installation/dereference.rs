//! Reads what an installation depends on beside itself, and what is in the cluster of it.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{Api, Client, ResourceExt, api::DynamicObject, core::ApiResource};

use super::{
    certificates,
    handover::{self, Selected},
    previous, selector,
};
use crate::{
    api::meshwright::{CertificateStatus, MeshInstallation, MeshInstallationStatus},
    ca::SECRET as CA_SECRET,
    operator::{
        apply::{Error, Key, Live},
        context::Context,
        webhooks::operator_role,
    },
    webhook::{
        certificate::keeper::SECRET as WEBHOOK_SECRET, validate::installation::unknown_fields,
    },
};

/// What an installation is made of beside its own spec.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// All installations, this one among them.
    pub installations: Vec<Arc<MeshInstallation>>,
    /// The names that injection webhooks select now.
    pub selected: Selected,
    /// PEM of the webhook's CA.
    pub webhook_ca: String,
    /// The operator's own ClusterRole; none where the operator runs outside the cluster.
    pub operator_role: Option<OwnerReference>,
}

/// All that was read.
pub(super) struct Observed {
    pub inputs: Inputs,
    pub live: Live,
    /// As the API server has it: what a watch tells may be older than what we wrote.
    pub status: MeshInstallationStatus,
    /// Fields of the stored spec that this version does not know.
    pub unknown_fields: Vec<String>,
    pub certificates: Vec<CertificateStatus>,
    /// What could not be read, beside what `live` says.
    pub failures: Vec<Error>,
}

/// Reads it. What cannot be read is told and holds up nothing else, but for what a name that goes over
/// to another installation needs: that is the error.
pub(super) async fn dereference(
    installation: &MeshInstallation,
    context: &Context,
) -> Result<Observed, Error> {
    let (client, name) = (&context.client, installation.name_any());
    let mut failures = Vec::new();
    let mut tell = |error| failures.push(error);
    let role = operator_role(client).await.map_err(&mut tell).ok();
    let stored = stored(client, &name).await.map_err(&mut tell).ok().flatten();
    let namespace = &context.platform.namespace;
    let webhook = secret(client, namespace, WEBHOOK_SECRET).await.map_err(&mut tell).ok();
    let authority = secret(client, namespace, CA_SECRET).await.map_err(&mut tell).ok();
    let live = Live::read(client, &selector(&name)).await;
    let (installations, selected) = names(installation, context, &live).await?;
    let inputs = Inputs {
        installations,
        selected,
        webhook_ca: context.webhook_ca.borrow().clone(),
        operator_role: role.unwrap_or_else(|| role_of_webhooks(&live)),
    };
    Ok(Observed {
        inputs,
        status: stored.as_ref().map(previous).unwrap_or_default(),
        unknown_fields: stored
            .map(|object| unknown_fields(&object.data["spec"]))
            .unwrap_or_default(),
        certificates: certificates::read(webhook.flatten().as_ref(), authority.flatten().as_ref()),
        live,
        failures,
    })
}

/// All installations, and which names webhooks select: its own, and those of others where one of its
/// own may go over to them.
async fn names(
    installation: &MeshInstallation,
    context: &Context,
    live: &Live,
) -> Result<(Vec<Arc<MeshInstallation>>, Selected), Error> {
    let client = &context.client;
    let unread = |kind| move |error| Error::api("list", Key::kind(kind), error);
    let own = handover::told_by(&live.objects.mutating_webhooks);
    let cached = context.installations.load().objects.clone();
    // What could not be read says nothing about what is selected.
    if live.failures.is_empty() && !handover::gives_up(installation, &cached, &own) {
        return Ok((cached, own));
    }
    let selected =
        handover::selected(client).await.map_err(unread("MutatingWebhookConfiguration"))?;
    // Who stops to select a name must know who asks for it now: the cache could be a moment behind,
    // and the name would be nobody's for that moment.
    if !handover::gives_up(installation, &cached, &selected) {
        return Ok((cached, selected));
    }
    let now = handover::installations(client).await.map_err(unread("MeshInstallation"))?;
    Ok((now, selected))
}

/// Where the role cannot be read, what it was before.
fn role_of_webhooks(live: &Live) -> Option<OwnerReference> {
    let owners = live.objects.mutating_webhooks.iter().flat_map(ResourceExt::owner_references);
    owners.into_iter().find(|owner| owner.kind == "ClusterRole").cloned()
}

/// The installation as the API server has it, whether or not it can be read as one.
pub(super) async fn stored(client: &Client, name: &str) -> Result<Option<DynamicObject>, Error> {
    let resource = ApiResource::erase::<MeshInstallation>(&());
    let found = Api::<DynamicObject>::all_with(client.clone(), &resource).get_opt(name).await;
    found.map_err(|error| {
        let object = Key { name: name.to_owned(), ..Key::kind("MeshInstallation") };
        Error::api("get", object, error)
    })
}

async fn secret(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    let found = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(name).await;
    found.map_err(|error| {
        let namespace = Some(namespace.to_owned());
        let object = Key { kind: "Secret".to_owned(), namespace, name: name.to_owned() };
        Error::api("get", object, error)
    })
}
