//! Gateways that a MeshInstallation lists.

mod service;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaling, DisruptionBudget, ObjectPatch, Placement, Resources};

pub use service::{
    ExternalTrafficPolicy, GatewayService, InternalTrafficPolicy, IpFamily, IpFamilyPolicy,
    ServiceType,
};

/// A proxy at the edge of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(has(self.replicas) && has(self.autoscaling))",
        "message": "give either replicas or autoscaling: the autoscaler decides how many run",
    },
    {
        "rule": "!self.ports.exists(p, has(p.nodePort)) || (has(self.serviceType) ? self.serviceType != 'ClusterIP' : self.kind == 'Ingress')",
        "message": "a Service of type ClusterIP has no node ports: take ports[].nodePort out, or choose another serviceType",
    },
    {
        "rule": "!(has(self.service.loadBalancerClass) || has(self.service.loadBalancerSourceRanges) || has(self.service.allocateLoadBalancerNodePorts)) || (has(self.serviceType) ? self.serviceType == 'LoadBalancer' : self.kind == 'Ingress')",
        "message": "loadBalancerClass, loadBalancerSourceRanges and allocateLoadBalancerNodePorts are for the serviceType LoadBalancer",
    },
    {
        "rule": "!has(self.service.externalTrafficPolicy) || (has(self.serviceType) ? self.serviceType != 'ClusterIP' : self.kind == 'Ingress')",
        "message": "externalTrafficPolicy is for the serviceTypes LoadBalancer and NodePort",
    },
]))]
pub struct Gateway {
    /// Name of the Deployment, the Service and the ServiceAccount.
    #[schemars(length(min = 1, max = 50), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the gateway; the operator's own if empty.
    #[serde(default)]
    #[schemars(length(max = 63), regex(pattern = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"))]
    pub namespace: String,
    /// Whether traffic enters or leaves the mesh through it.
    #[serde(default)]
    pub kind: GatewayKind,
    /// How many run. The profile's number if not given, and then its autoscaling; with a number there
    /// is no autoscaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler decide how many run. The cluster needs a metrics server for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How many must stay while nodes are drained. One, if not given, where always several run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// Where they run.
    #[serde(default)]
    pub placement: Placement,
    /// What each asks for and may use; that of `spec.proxy` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// How long connections may go on when one of its pods is to end; that of `spec.proxy` if not
    /// given. The pod is no longer ready meanwhile, and is given that time before it is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_seconds: Option<i32>,
    /// Type of its Service; `LoadBalancer` for ingress and `ClusterIP` for egress if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
    /// What else its Service says.
    #[serde(default)]
    pub service: GatewayService,
    /// IP addresses that it is to be reached at. Of a load balancer the first is asked for; all
    /// others, and all of a Service of another type, become external IPs of the Service, which the
    /// cluster's network must lead to its nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 2, max = 45)))]
    pub addresses: Vec<String>,
    /// Ports of its Service.
    #[serde(default = "super::defaults::gateway_ports")]
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"])
    )]
    pub ports: Vec<GatewayPort>,
    /// Labels of its pods, which the `selector` of Istio's Gateways matches. They come on top of
    /// `app: NAME`, `istio: ingressgateway` (or `egressgateway`) and `meshwright.dev/gateway: NAME`,
    /// and replace the first two where they have the same key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Laid over the objects of this gateway as strategic merge patches, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub patches: Vec<ObjectPatch>,
}

/// Which way traffic goes through a gateway.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum GatewayKind {
    #[default]
    Ingress,
    Egress,
}

impl Gateway {
    /// The type of its Service.
    pub fn service_type(&self) -> ServiceType {
        self.service_type.unwrap_or(match self.kind {
            GatewayKind::Ingress => ServiceType::LoadBalancer,
            GatewayKind::Egress => ServiceType::ClusterIp,
        })
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            name: String::new(),
            namespace: String::new(),
            kind: GatewayKind::default(),
            replicas: None,
            autoscaling: None,
            disruption_budget: None,
            placement: Placement::default(),
            resources: None,
            drain_seconds: None,
            service_type: None,
            service: GatewayService::default(),
            addresses: Vec::new(),
            ports: super::defaults::gateway_ports(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            patches: Vec::new(),
        }
    }
}

/// A port of a gateway's Service.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPort {
    /// Name of the port, unique in the gateway.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Number that clients connect to. The pods, which are not privileged, listen on the same, or
    /// 8000 higher for numbers below 1024.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Number that every node listens on for it; the cluster's choice if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// What clients of the mesh speak to it.
    #[serde(default)]
    pub protocol: GatewayProtocol,
}

/// What is spoken on a gateway's port.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "UPPERCASE")]
pub enum GatewayProtocol {
    Http,
    Http2,
    Grpc,
    Https,
    Tls,
    #[default]
    Tcp,
}

impl GatewayProtocol {
    /// The value of a Service port's `appProtocol`.
    pub fn app_protocol(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Https => "https",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        }
    }
}
