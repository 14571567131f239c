//! The control plane's Deployment, Service and ServiceAccount, and what scales and guards it.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{
            Capabilities, Container, ContainerPort, HTTPGetAction, PodSecurityContext, PodSpec,
            PodTemplateSpec, Probe, SeccompProfile, SecurityContext, Service, ServiceAccount,
            ServicePort, ServiceSpec,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::{Validated, labels, metadata};
use crate::{
    operator::{
        installation::validate::ControlPlane,
        objects::{Objects, Prepared},
        placement, scaling,
    },
    webhook::inject::container::from_field,
};

const XDS_PORT: i32 = 15012;
const ADMIN_PORT: i32 = 15014;

pub(super) fn build(valid: &Validated, objects: &mut Objects<Prepared>) {
    let metadata =
        || metadata(valid, &valid.control_plane.name, Some(&valid.namespace), &valid.owner);
    objects
        .service_accounts
        .push(ServiceAccount { metadata: metadata(), ..ServiceAccount::default() });
    objects.services.push(Service {
        metadata: metadata(),
        spec: Some(ServiceSpec {
            selector: Some(selector(valid)),
            ports: Some(vec![
                service_port("tls-xds", XDS_PORT),
                service_port("http-metrics", ADMIN_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        status: None,
    });
    let ControlPlane { name, replicas, autoscaling, disruption_budget, .. } = &valid.control_plane;
    objects.deployments.push(Deployment {
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
    });
    objects
        .horizontal_pod_autoscalers
        .extend(autoscaling.iter().map(|a| scaling::autoscaler(metadata(), name, a)));
    objects
        .pod_disruption_budgets
        .extend(disruption_budget.iter().map(|b| scaling::budget(metadata(), &selector(valid), b)));
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
