//! A resource is encoded once, named by the hash of its content, and shared by every proxy.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster, endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
    route::v3::RouteConfiguration,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use prost::{Message, Name};

use super::names;

/// The xDS types that we serve, in the order in which a proxy must learn them (make before break);
/// the last two are for agents alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Secret,
    Cluster,
    Endpoints,
    Listener,
    Route,
    Host,
    Pod,
}

impl ResourceType {
    pub const ALL: [Self; 7] = [
        Self::Secret,
        Self::Cluster,
        Self::Endpoints,
        Self::Listener,
        Self::Route,
        Self::Host,
        Self::Pod,
    ];

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoints => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Host => names::HOST_TYPE_URL,
            Self::Pod => names::POD_TYPE_URL,
        }
    }

    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.type_url() == url)
    }

    /// Clusters, listeners and hosts are asked for by wildcard; the others by name.
    pub fn is_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener | Self::Host)
    }

    /// Whether requests are routed by it: what a client refuses of these may still lead to clusters
    /// and endpoints that are gone otherwise.
    pub fn is_routing(self) -> bool {
        matches!(self, Self::Listener | Self::Route)
    }
}

/// One encoded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Hash of `body`, and of the name where the body does not hold it: equal content has an equal
    /// version, whoever built it, and resources of different names have different ones.
    pub version: u64,
    /// The encoded message, without the `Any` around it.
    pub body: Bytes,
    /// For a cluster with endpoints from EDS: their name. Envoy holds an updated cluster back until
    /// they are sent again, even unchanged.
    pub warmed_by: Option<Arc<str>>,
}

/// A message that is a resource of one type and knows its own name.
pub trait Discoverable: Message + Name {
    const TYPE: ResourceType;
    fn resource_name(&self) -> &str;
    /// The endpoints that it waits for.
    fn warmed_by(&self) -> Option<&str> {
        None
    }
}

macro_rules! discoverable {
    ($($message:ty => $type:ident, $name:ident;)*) => {$(
        impl Discoverable for $message {
            const TYPE: ResourceType = ResourceType::$type;
            fn resource_name(&self) -> &str {
                &self.$name
            }
        }
    )*};
}

impl Discoverable for Cluster {
    const TYPE: ResourceType = ResourceType::Cluster;

    fn resource_name(&self) -> &str {
        &self.name
    }

    fn warmed_by(&self) -> Option<&str> {
        let eds = self.eds_cluster_config.as_ref()?;
        Some(if eds.service_name.is_empty() { &self.name } else { &eds.service_name })
    }
}

discoverable! {
    ClusterLoadAssignment => Endpoints, cluster_name;
    Listener => Listener, name;
    RouteConfiguration => Route, name;
    Secret => Secret, name;
}

impl Resource {
    pub fn encode<M: Discoverable>(message: &M) -> Self {
        let encoded = Self::from_encoded(message.resource_name(), message.encode_to_vec());
        encoded.waiting_for(message.warmed_by())
    }

    /// A message that is encoded already.
    pub fn from_encoded(name: &str, body: Vec<u8>) -> Self {
        let body = Bytes::from(body);
        let version = xxhash_rust::xxh3::xxh3_64(&body);
        Self { name: name.into(), version, body, warmed_by: None }
    }

    /// A message that does not hold its own name.
    pub fn encode_nameless<M: Message>(name: &str, message: &M) -> Self {
        use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
        let body = Bytes::from(message.encode_to_vec());
        let version = xxh3_64_with_seed(&body, xxh3_64(name.as_bytes()));
        Self { name: name.into(), version, body, warmed_by: None }
    }

    /// The same, of a cluster whose endpoints have this name.
    #[must_use]
    pub fn waiting_for(mut self, endpoints: Option<&str>) -> Self {
        self.warmed_by = endpoints.map(Into::into);
        self
    }
}

/// Resources of one type by name; shared by every proxy that sees all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceSet {
    pub by_name: BTreeMap<Arc<str>, Arc<Resource>>,
}

impl ResourceSet {
    pub fn insert<M: Discoverable>(&mut self, message: &M) {
        self.insert_encoded(Resource::encode(message));
    }

    pub fn insert_encoded(&mut self, resource: Resource) {
        self.by_name.insert(resource.name.clone(), Arc::new(resource));
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(name)
    }

    /// Whether both hold the same names in the same versions.
    pub fn same_versions(&self, other: &Self) -> bool {
        self.by_name.len() == other.by_name.len()
            && self.by_name.iter().zip(&other.by_name).all(|((name, ours), (other, theirs))| {
                name == other && ours.version == theirs.version
            })
    }
}

impl FromIterator<Arc<Resource>> for ResourceSet {
    fn from_iter<I: IntoIterator<Item = Arc<Resource>>>(resources: I) -> Self {
        Self { by_name: resources.into_iter().map(|r| (r.name.clone(), r)).collect() }
    }
}
