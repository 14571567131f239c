//! Reads what an installation depends on beside itself.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::{
    Error,
    handover::{self, Selected},
};
use crate::{
    api::meshwright::MeshInstallation,
    operator::{context::Context, webhooks::operator_role},
};

/// What was read.
#[derive(Clone, Debug)]
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

/// Reads it.
pub async fn dereference(
    installation: &MeshInstallation,
    context: &Context,
) -> Result<Inputs, Error> {
    let failed = |error| Error::Dereference(Box::new(error));
    let operator_role = operator_role(&context.client).await.map_err(failed)?;
    let selected = handover::selected(&context.client).await.map_err(failed)?;
    let mut installations = context.installations.load().objects.clone();
    // Who stops to select a name must know who asks for it now: the cache could be a moment behind,
    // and the name would be nobody's for that moment.
    if handover::gives_up(installation, &installations, &selected) {
        installations = handover::installations(&context.client).await.map_err(failed)?;
    }
    Ok(Inputs {
        installations,
        selected,
        webhook_ca: context.webhook_ca.borrow().clone(),
        operator_role,
    })
}
