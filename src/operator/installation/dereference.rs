//! Reads what an installation depends on beside itself.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Error;
use crate::{
    api::meshwright::MeshInstallation,
    operator::{context::Context, webhooks::operator_role},
};

/// What was read.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// All installations, this one among them.
    pub installations: Vec<Arc<MeshInstallation>>,
    /// PEM of the webhook's CA.
    pub webhook_ca: String,
    /// The operator's own ClusterRole; none where the operator runs outside the cluster.
    pub operator_role: Option<OwnerReference>,
}

/// Reads it.
pub async fn dereference(context: &Context) -> Result<Inputs, Error> {
    let operator_role = operator_role(&context.client)
        .await
        .map_err(|error| Error::Dereference(Box::new(error)))?;
    Ok(Inputs {
        installations: context.installations.load().objects.clone(),
        webhook_ca: context.webhook_ca.borrow().clone(),
        operator_role,
    })
}
