//! The Deployment, Service and ServiceAccount of a gateway: those of a MeshInstallation and those of
//! the Gateway API alike.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{PodSpec, PodTemplateSpec, Service, ServiceAccount, ServicePort, ServiceSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::api::ObjectMeta;

use super::objects::{Objects, Prepared};
use crate::{
    api::meshwright::labels,
    plan::gateway_target_port,
    webhook::inject::{
        ProxySettings,
        container::{self, ProxyIdentity, Role},
    },
};

/// A gateway, ready to be built.
#[derive(Clone, Debug)]
pub struct GatewayWorkload {
    pub name: String,
    pub namespace: String,
    pub owner: OwnerReference,
    /// Labels of all its objects.
    pub labels: BTreeMap<String, String>,
    /// Annotations of all its objects.
    pub annotations: BTreeMap<String, String>,
    /// Labels of its pods beside `labels`.
    pub pod_labels: BTreeMap<String, String>,
    /// Which pods are its own; part of `pod_labels`.
    pub selector: BTreeMap<String, String>,
    pub replicas: i32,
    pub service_type: &'static str,
    pub load_balancer_ip: Option<String>,
    pub ports: Vec<Port>,
    pub proxy: ProxySettings,
}

/// A port of a gateway's Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub port: u16,
    pub app_protocol: Option<&'static str>,
}

impl GatewayWorkload {
    /// Adds its objects.
    pub fn build(&self, objects: &mut Objects<Prepared>) {
        objects.service_accounts.push(self.service_account());
        objects.services.push(self.service());
        objects.deployments.push(self.deployment());
    }

    fn metadata(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels.clone()),
            annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.metadata(),
            // The proxy has a token of its own, for the mesh's CA only.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    fn service(&self) -> Service {
        let port = |port: &Port| ServicePort {
            name: Some(port.name.clone()),
            port: port.port.into(),
            target_port: Some(IntOrString::Int(gateway_target_port(port.port).into())),
            protocol: Some("TCP".to_owned()),
            app_protocol: port.app_protocol.map(str::to_owned),
            ..ServicePort::default()
        };
        Service {
            metadata: self.metadata(),
            spec: Some(ServiceSpec {
                type_: Some(self.service_type.to_owned()),
                selector: Some(self.selector.clone()),
                ports: Some(self.ports.iter().map(port).collect()),
                load_balancer_ip: self.load_balancer_ip.clone(),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }

    fn deployment(&self) -> Deployment {
        let mut labels = self.labels.clone();
        labels.extend(self.pod_labels.clone());
        labels.insert(labels::REVISION.to_owned(), self.proxy.revision.clone());
        // It is a proxy already, whatever its namespace asks for.
        labels.insert(labels::INJECT.to_owned(), "false".to_owned());
        let identity = ProxyIdentity { role: Role::Router, workload: self.name.clone() };
        let mut annotations = self.annotations.clone();
        annotations.extend(container::scrape_annotations());
        Deployment {
            metadata: self.metadata(),
            spec: Some(DeploymentSpec {
                replicas: Some(self.replicas),
                selector: LabelSelector {
                    match_labels: Some(self.selector.clone()),
                    match_expressions: None,
                },
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(labels),
                        annotations: Some(annotations),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(self.pod(&identity)),
                },
                ..DeploymentSpec::default()
            }),
            status: None,
        }
    }

    fn pod(&self, identity: &ProxyIdentity) -> PodSpec {
        PodSpec {
            service_account_name: Some(self.name.clone()),
            automount_service_account_token: Some(false),
            // Variables for each Service of the namespace are of no use to a proxy.
            enable_service_links: Some(false),
            // Time for the drain, and for Envoy to end.
            termination_grace_period_seconds: Some(
                i64::from(self.proxy.defaults.drain_seconds) + 25,
            ),
            containers: vec![container::proxy(&self.proxy, &self.proxy.defaults, identity)],
            volumes: Some(container::volumes(&self.proxy.defaults)),
            ..PodSpec::default()
        }
    }
}
