//! Parses an installation into what the builders take: names resolved, images chosen, nothing left
//! to be checked.

use k8s_openapi::{
    api::core::v1::ResourceRequirements, apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Resource, ResourceExt};

pub use super::dereference::Inputs;
use super::{Error, handover};
use crate::{
    api::meshwright::{
        Autoscaling, DisruptionBudget, Gateway, MeshInstallation, MeshInstallationSpec,
        ObjectPatch, Placement, Profile,
    },
    diagnostic::{Diagnostic, Severity},
    operator::{
        apply::Key,
        platform::{Images, Platform, WebhookEndpoint},
    },
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
    pub profile: Profile,
    pub istio_labels: bool,
    /// The operator's namespace, where the control plane goes.
    pub namespace: String,
    pub control_plane: ControlPlane,
    pub proxy: ProxySettings,
    /// Those that can be built, with their namespaces and what the profile decides filled in.
    pub gateways: Vec<Gateway>,
    /// Namespace and name of all of them, in the order of the spec.
    pub listed: Vec<(String, String)>,
    /// What is wrong with gateways, which holds up no other. They stay as they are.
    pub problems: Vec<Diagnostic>,
    /// What works and deserves attention.
    pub warnings: Vec<Diagnostic>,
    pub webhook: Webhook,
}

impl Validated {
    /// Whether an object is of a gateway that cannot be built, and stays as it is.
    pub fn is_held_back(&self, key: &Key) -> bool {
        let is_its = |namespace: &String, name: &String| {
            key.namespace.as_ref() == Some(namespace) && key.name == *name
        };
        self.listed.iter().any(|(namespace, name)| is_its(namespace, name))
            && !self.gateways.iter().any(|g| is_its(&g.namespace, &g.name))
    }
}

#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// Of its Deployment, Service, …
    pub name: String,
    pub image: String,
    pub image_pull_policy: String,
    /// None where an autoscaler decides.
    pub replicas: Option<i32>,
    pub autoscaling: Option<Autoscaling>,
    pub disruption_budget: Option<DisruptionBudget>,
    pub placement: Placement,
    pub resources: ResourceRequirements,
    pub patches: Vec<ObjectPatch>,
}

impl ControlPlane {
    /// Whether there may be more than one.
    pub fn is_several(&self) -> bool {
        self.autoscaling.as_ref().map_or(self.replicas, |a| Some(a.max_replicas)) > Some(1)
    }
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
    let found = installation::check(installation, installations.iter().map(AsRef::as_ref));
    let (errors, warnings): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|finding| finding.severity == Severity::Error);
    let (problems, fatal): (Vec<_>, Vec<_>) =
        errors.into_iter().partition(|finding| gateway_of(finding).is_some());
    if !fatal.is_empty() {
        return Err(Error::Invalid(fatal.into_iter().chain(problems).collect()));
    }
    let inputs = Inputs { installations, selected, webhook_ca, operator_role };
    let mut valid = unchecked(installation, inputs, platform);
    let mut positions = 0..;
    valid.gateways.retain(|_| {
        let at = positions.next();
        !problems.iter().any(|problem| gateway_of(problem) == at)
    });
    Ok(Validated { problems, warnings, ..valid })
}

/// As it would be built if it were valid, wherever the operator runs.
pub(super) fn rehearsal(installation: &MeshInstallation) -> Validated {
    let inputs = Inputs::default();
    let namespace = "meshwright-system".to_owned();
    let platform = Images::default().platform(namespace, WebhookEndpoint::Service);
    unchecked(installation, inputs, &platform)
}

fn unchecked(installation: &MeshInstallation, inputs: Inputs, platform: &Platform) -> Validated {
    let Inputs { installations, selected, webhook_ca, operator_role } = inputs;
    let spec = installation.spec.resolved();
    let owner = installation.controller_owner_ref(&()).unwrap_or_default();
    let gateways = gateways(&spec, platform);
    Validated {
        name: installation.name_any(),
        revision: spec.revision.clone(),
        tags: Tags {
            kept: handover::kept(installation, &installations, &selected),
            ..names::tags(installation, installations.iter().map(AsRef::as_ref))
        },
        version: platform.version(&spec.version).to_owned(),
        profile: spec.profile,
        istio_labels: spec.compatibility.istio_labels,
        namespace: platform.namespace.clone(),
        control_plane: control_plane(&spec, platform),
        proxy: proxy_settings(installation, platform, &NativeSupport::default()),
        listed: places(&gateways),
        gateways,
        problems: Vec::new(),
        warnings: Vec::new(),
        webhook: Webhook {
            endpoint: platform.webhook.clone(),
            ca: webhook_ca,
            owner: operator_role.unwrap_or_else(|| owner.clone()),
        },
        owner,
    }
}

/// Position of the gateway that a finding is about.
fn gateway_of(finding: &Diagnostic) -> Option<usize> {
    finding.path.strip_prefix("spec.gateways[")?.split(']').next()?.parse().ok()
}

/// Those of a resolved spec, with their namespaces.
fn gateways(spec: &MeshInstallationSpec, platform: &Platform) -> Vec<Gateway> {
    let mut gateways = spec.gateways.clone();
    for gateway in gateways.iter_mut().filter(|gateway| gateway.namespace.is_empty()) {
        gateway.namespace.clone_from(&platform.namespace);
    }
    gateways
}

/// Each once: two gateways of one name are an error that is told elsewhere.
fn places(gateways: &[Gateway]) -> Vec<(String, String)> {
    let mut places = Vec::new();
    for Gateway { namespace, name, .. } in gateways {
        let place = (namespace.clone(), name.clone());
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Of a resolved spec.
fn control_plane(spec: &MeshInstallationSpec, platform: &Platform) -> ControlPlane {
    let asked = &spec.control_plane;
    ControlPlane {
        name: Platform::control_plane_name(&spec.revision),
        image: platform.image("meshwright", &spec.version),
        image_pull_policy: platform.image_pull_policy.clone(),
        replicas: if asked.autoscaling.is_some() { None } else { asked.replicas },
        autoscaling: asked.autoscaling.clone(),
        disruption_budget: asked.disruption_budget.clone(),
        placement: asked.placement.clone(),
        resources: asked.resources.as_ref().map(container::resources).unwrap_or_default(),
        patches: asked.patches.clone(),
    }
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
    let spec = installation.spec.resolved();
    let settings = ProxySettings::new(
        &spec,
        platform.image("meshwright-proxy", &spec.version),
        &platform.image_pull_policy,
        platform.discovery_address(&spec.revision),
        native.everywhere(),
    );
    ProxySettings { native: native.clone(), ..settings }
}
