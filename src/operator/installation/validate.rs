//! Parses an installation into what the builders take: names resolved, images chosen, nothing left
//! to be checked.

use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, ResourceExt};

pub use super::dereference::Inputs;
use super::{Error, handover};
use crate::{
    api::meshwright::{Gateway, MeshInstallation},
    diagnostic::Severity,
    operator::platform::{Platform, WebhookEndpoint},
    webhook::{
        inject::{InjectConfig, NativeSupport, ProxySettings, container},
        validate::{
            installation,
            names::{self, Tags},
        },
    },
};

/// An installation that can be built.
#[derive(Clone, Debug)]
pub struct Validated {
    pub name: String,
    pub owner: OwnerReference,
    pub revision: String,
    /// Other names of the revision, as far as no older installation has them.
    pub tags: Tags,
    pub version: String,
    pub istio_labels: bool,
    /// The operator's namespace, where the control plane goes.
    pub namespace: String,
    pub control_plane: ControlPlane,
    pub proxy: ProxySettings,
    /// With their namespaces filled in.
    pub gateways: Vec<Gateway>,
    pub webhook: Webhook,
}

#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Of its Deployment, Service, …
    pub name: String,
    pub image: String,
    pub image_pull_policy: String,
    pub replicas: i32,
    pub resources: ResourceRequirements,
}

#[derive(Clone, Debug)]
pub struct Webhook {
    pub endpoint: WebhookEndpoint,
    /// PEM.
    pub ca: String,
    /// With whom the configuration goes. The chart's ClusterRole where there is one, so that
    /// uninstalling the operator does not leave a webhook behind that nobody answers.
    pub owner: OwnerReference,
}

/// Checks and resolves.
pub fn validate(
    installation: &MeshInstallation,
    inputs: Inputs,
    platform: &Platform,
) -> Result<Validated, Error> {
    let Inputs { installations, selected, webhook_ca, operator_role } = inputs;
    let mut found = installation::check(installation, installations.iter().map(AsRef::as_ref));
    found.retain(|finding| finding.severity == Severity::Error);
    if !found.is_empty() {
        return Err(Error::Invalid(found));
    }
    let spec = &installation.spec;
    let owner = installation.controller_owner_ref(&()).unwrap_or_default();
    let resolved = |gateway: &Gateway| {
        let mut gateway = gateway.clone();
        if gateway.namespace.is_empty() {
            gateway.namespace.clone_from(&platform.namespace);
        }
        gateway
    };
    Ok(Validated {
        name: installation.name_any(),
        revision: spec.revision.clone(),
        tags: Tags {
            kept: handover::kept(installation, &installations, &selected),
            ..names::tags(installation, installations.iter().map(AsRef::as_ref))
        },
        version: platform.version(&spec.version).to_owned(),
        istio_labels: spec.compatibility.istio_labels,
        namespace: platform.namespace.clone(),
        control_plane: ControlPlane {
            name: Platform::control_plane_name(&spec.revision),
            image: platform.image("meshwright", &spec.version),
            image_pull_policy: platform.image_pull_policy.clone(),
            replicas: spec.control_plane.replicas.unwrap_or(1),
            resources: spec
                .control_plane
                .resources
                .as_ref()
                .map_or_else(default_resources, container::resources),
        },
        proxy: proxy_settings(installation, platform, &NativeSupport::default()),
        gateways: spec.gateways.iter().map(resolved).collect(),
        webhook: Webhook {
            endpoint: platform.webhook.clone(),
            ca: webhook_ca,
            owner: operator_role.unwrap_or_else(|| owner.clone()),
        },
        owner,
    })
}

/// What the injection webhook does for an installation, one of `all`, in a cluster with such nodes.
pub fn inject_config<'a>(
    installation: &MeshInstallation,
    all: impl Iterator<Item = &'a MeshInstallation>,
    platform: &Platform,
    native: &NativeSupport,
) -> InjectConfig {
    InjectConfig {
        revision: installation.spec.revision.clone(),
        system_namespace: platform.namespace.clone(),
        tags: names::tags(installation, all).held,
        istio_labels: installation.spec.compatibility.istio_labels,
        injection: installation.spec.injection.clone(),
        proxy: proxy_settings(installation, platform, native),
    }
}

/// The proxies of an installation. Gateways, which are no sidecars, do not depend on `native`.
pub fn proxy_settings(
    installation: &MeshInstallation,
    platform: &Platform,
    native: &NativeSupport,
) -> ProxySettings {
    let spec = &installation.spec;
    let settings = ProxySettings::new(
        spec,
        platform.image("meshwright-proxy", &spec.version),
        &platform.image_pull_policy,
        platform.discovery_address(&spec.revision),
        native.everywhere(),
    );
    ProxySettings { native: native.clone(), ..settings }
}

fn default_resources() -> ResourceRequirements {
    container::requests("50m", "64Mi")
}
