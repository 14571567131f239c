//! What of a request matters, of either variant of the protocol.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::xds::ResourceType;

/// A request of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `None` for a type that we do not serve: nothing is ever sent for it.
    pub kind: Option<ResourceType>,
    /// All names, in the state of the world.
    pub subscribe: Vec<String>,
    pub unsubscribe: Vec<String>,
    /// What the client still has from an earlier stream.
    pub initial_versions: Vec<(String, String)>,
    /// The response that it answers.
    pub nonce: Option<u64>,
    /// Why it refuses that response.
    pub error: Option<String>,
}

impl From<DeltaDiscoveryRequest> for Request {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self {
            kind: ResourceType::from_type_url(&request.type_url),
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            initial_versions: request.initial_resource_versions.into_iter().collect(),
            nonce: request.response_nonce.parse().ok(),
            error: request.error_detail.map(|status| status.message),
        }
    }
}

impl From<DiscoveryRequest> for Request {
    fn from(request: DiscoveryRequest) -> Self {
        Self {
            kind: ResourceType::from_type_url(&request.type_url),
            subscribe: request.resource_names,
            unsubscribe: Vec::new(),
            initial_versions: Vec::new(),
            nonce: request.response_nonce.parse().ok(),
            error: request.error_detail.map(|status| status.message),
        }
    }
}
