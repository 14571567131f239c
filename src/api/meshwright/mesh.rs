//! Settings of the whole mesh, under the names of Istio's MeshConfig where it has them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the whole mesh.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshSettings {
    /// What happens to traffic for destinations that the mesh does not know.
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    /// Whether proxies write a line of JSON for each request to standard output.
    pub access_log: bool,
    /// How an endpoint is chosen where no DestinationRule says.
    pub load_balancing: LoadBalancing,
}

/// What happens to traffic for destinations that the mesh does not know.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// `ALLOW_ANY` passes it through as it is, `REGISTRY_ONLY` refuses it.
    pub mode: OutboundTrafficMode,
}

/// Modes of [`OutboundTrafficPolicy`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundTrafficMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// Ways of choosing an endpoint.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoadBalancing {
    RoundRobin,
    #[default]
    LeastRequest,
    Random,
}
