//! Gateways that a MeshInstallation lists.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Autoscaling, DisruptionBudget, ObjectPatch, Placement, Resources};

/// A proxy at the edge of the mesh.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
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
    /// How many run.
    /// The profile's number if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Lets a HorizontalPodAutoscaler decide how many run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// How many must stay while nodes are drained. The profile's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption_budget: Option<DisruptionBudget>,
    /// Where they run.
    #[serde(default)]
    pub placement: Placement,
    /// What each asks for and may use; that of `spec.proxy` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Type of its Service; `LoadBalancer` for ingress and `ClusterIP` for egress if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_type: Option<ServiceType>,
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
    pub labels: BTreeMap<String, String>,
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

/// Types of Services that gateways may have.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum ServiceType {
    LoadBalancer,
    NodePort,
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

impl ServiceType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::ClusterIp => "ClusterIP",
        }
    }
}

/// A port of a gateway's Service.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct GatewayPort {
    /// Name of the port, unique in the gateway.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Number that clients connect to.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
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
