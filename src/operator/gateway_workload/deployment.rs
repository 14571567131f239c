//! The Deployment of a gateway.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{PodSpec, PodTemplateSpec},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::GatewayWorkload;
use crate::{
    api::meshwright::labels,
    operator::placement,
    webhook::inject::container::{self, ProxyIdentity, Role},
};

/// Beyond the drain: for the kubelet's signal, and for Envoy to end.
const END_SECONDS: i64 = 25;

impl GatewayWorkload {
    pub(super) fn deployment(&self) -> Deployment {
        Deployment {
            metadata: self.metadata(),
            spec: Some(DeploymentSpec {
                replicas: self.scale.replicas,
                strategy: Some(strategy()),
                selector: LabelSelector {
                    match_labels: Some(self.selector.clone()),
                    match_expressions: None,
                },
                template: PodTemplateSpec {
                    metadata: Some(self.pod_metadata()),
                    spec: Some(self.pod()),
                },
                ..DeploymentSpec::default()
            }),
            status: None,
        }
    }

    fn pod_metadata(&self) -> ObjectMeta {
        let mut labels = self.labels.clone();
        labels.extend(self.pod_labels.clone());
        labels.insert(labels::REVISION.to_owned(), self.proxy.revision.clone());
        // It is a proxy already, whatever its namespace asks for.
        labels.insert(labels::INJECT.to_owned(), "false".to_owned());
        let mut annotations = self.annotations.clone();
        annotations.extend(container::scrape_annotations());
        annotations.extend(self.pod_annotations.clone());
        ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
    }

    fn pod(&self) -> PodSpec {
        let identity = ProxyIdentity { role: Role::Router, workload: self.name.clone() };
        let defaults = &self.proxy.defaults;
        let mut pod = PodSpec {
            service_account_name: Some(self.name.clone()),
            automount_service_account_token: Some(false),
            // Variables for each Service of the namespace are of no use to a proxy.
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::from(defaults.drain_seconds) + END_SECONDS),
            containers: vec![container::proxy(&self.proxy, defaults, &identity)],
            volumes: Some(container::volumes(defaults)),
            ..PodSpec::default()
        };
        placement::place(&mut pod, &self.placement, &self.selector, self.scale.may_be_several());
        pod
    }
}

/// A new pod is ready before an old one is told to end.
fn strategy() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::String("25%".to_owned())),
            max_unavailable: Some(IntOrString::Int(0)),
        }),
    }
}
