//! The control plane's Deployment, Service and ServiceAccount, and what scales and guards it.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{
            Capabilities, Container, ContainerPort, HTTPGetAction, PodSecurityContext, PodSpec,
            PodTemplateSpec, Probe, SeccompProfile, SecurityContext, Service, ServiceAccount,
            ServicePort, ServiceSpec,
        },
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::{Validated, labels, metadata};
use crate::{
    api::meshwright::{ObjectPatch, PatchedKind},
    operator::{
        installation::validate::ControlPlane,
        objects::{Objects, Prepared},
        patches::{PatchError, patched},
        placement, scaling,
    },
    webhook::inject::container::from_field,
};

const XDS_PORT: i32 = 15012;
const ADMIN_PORT: i32 = 15014;

/// The objects that patches are for.
struct Parts {
    service_account: ServiceAccount,
    service: Service,
    deployment: Deployment,
    autoscaler: Option<HorizontalPodAutoscaler>,
    budget: Option<PodDisruptionBudget>,
}

pub(super) fn build(valid: &Validated, objects: &mut Objects<Prepared>) {
    // Patches have been checked by then; one that had not been would have no effect.
    let parts = parts(valid);
    let parts = patch(&parts, &valid.control_plane.patches).unwrap_or(parts);
    objects.service_accounts.push(parts.service_account);
    objects.services.push(parts.service);
    objects.deployments.push(parts.deployment);
    objects.horizontal_pod_autoscalers.extend(parts.autoscaler);
    objects.pod_disruption_budgets.extend(parts.budget);
}

/// The first patch that cannot be applied.
pub(super) fn patch_problem(valid: &Validated) -> Option<PatchError> {
    patch(&parts(valid), &valid.control_plane.patches).err()
}

fn patch(parts: &Parts, patches: &[ObjectPatch]) -> Result<Parts, PatchError> {
    use PatchedKind as Kind;
    let Parts { service_account, service, deployment, autoscaler, budget } = parts;
    let missing = |kind, is_missing: bool| {
        let index = patches.iter().position(|patch| patch.kind == kind).filter(|_| is_missing)?;
        let message = format!("the control plane has no {}", kind.as_str());
        Some(PatchError { index, field: String::new(), message })
    };
    let absent = missing(Kind::HorizontalPodAutoscaler, autoscaler.is_none())
        .or_else(|| missing(Kind::PodDisruptionBudget, budget.is_none()));
    if let Some(problem) = absent {
        return Err(problem);
    }
    Ok(Parts {
        service_account: patched(service_account.clone(), Kind::ServiceAccount, patches)?,
        service: patched(service.clone(), Kind::Service, patches)?,
        deployment: patched(deployment.clone(), Kind::Deployment, patches)?,
        autoscaler: autoscaler
            .clone()
            .map(|object| patched(object, Kind::HorizontalPodAutoscaler, patches))
            .transpose()?,
        budget: budget
            .clone()
            .map(|object| patched(object, Kind::PodDisruptionBudget, patches))
            .transpose()?,
    })
}

fn parts(valid: &Validated) -> Parts {
    let ControlPlane { name, replicas, autoscaling, disruption_budget, .. } = &valid.control_plane;
    let metadata = || metadata(valid, name, Some(&valid.namespace), &valid.owner);
    let ports = vec![service_port("tls-xds", XDS_PORT), service_port("http-metrics", ADMIN_PORT)];
    Parts {
        service_account: ServiceAccount { metadata: metadata(), ..ServiceAccount::default() },
        service: Service {
            metadata: metadata(),
            spec: Some(ServiceSpec {
                selector: Some(selector(valid)),
                ports: Some(ports),
                ..ServiceSpec::default()
            }),
            status: None,
        },
        deployment: Deployment {
            metadata: metadata(),
            spec: Some(DeploymentSpec {
                replicas: *replicas,
                selector: LabelSelector {
                    match_labels: Some(selector(valid)),
                    match_expressions: None,
                },
                template: template(valid),
                ..DeploymentSpec::default()
            }),
            status: None,
        },
        autoscaler: autoscaling.as_ref().map(|a| scaling::autoscaler(metadata(), name, a)),
        budget: disruption_budget
            .as_ref()
            .map(|budget| scaling::budget(metadata(), &selector(valid), budget)),
    }
}

fn selector(valid: &Validated) -> std::collections::BTreeMap<String, String> {
    [("app".to_owned(), valid.control_plane.name.clone())].into()
}

fn service_port(name: &str, port: i32) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}

fn template(valid: &Validated) -> PodTemplateSpec {
    let mut pod_labels = labels(valid);
    pod_labels.extend(selector(valid));
    let annotation = |key: &str, value: &str| (format!("prometheus.io/{key}"), value.to_owned());
    let mut spec = pod(valid);
    let settings = &valid.control_plane;
    placement::place(&mut spec, &settings.placement, &selector(valid), settings.is_several());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(
                [annotation("scrape", "true"), annotation("port", &ADMIN_PORT.to_string())].into(),
            ),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    }
}

fn pod(valid: &Validated) -> PodSpec {
    PodSpec {
        service_account_name: Some(valid.control_plane.name.clone()),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(1337),
            run_as_group: Some(1337),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(valid)],
        ..PodSpec::default()
    }
}

fn container(valid: &Validated) -> Container {
    let settings = &valid.control_plane;
    let args = ["control-plane", "--namespace", &valid.namespace, "--revision", &valid.revision];
    Container {
        name: "control-plane".to_owned(),
        image: Some(settings.image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        args: Some(args.map(str::to_owned).to_vec()),
        env: Some(vec![
            from_field("POD_NAME", "metadata.name"),
            from_field("POD_NAMESPACE", "metadata.namespace"),
        ]),
        ports: Some(vec![container_port("tls-xds", XDS_PORT), container_port("admin", ADMIN_PORT)]),
        resources: Some(settings.resources.clone()),
        readiness_probe: Some(probe("/readyz", 2)),
        liveness_probe: Some(Probe { failure_threshold: Some(6), ..probe("/livez", 10) }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn container_port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(ADMIN_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}
