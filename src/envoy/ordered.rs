//! Wire-equal twins of messages with maps. The generated ones hold `HashMap`s, which are encoded in
//! a random order: equal content would get another version each time, and be sent again.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::{core::v3 as core, endpoint::v3 as endpoint};
use prost::Message;

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// `google.protobuf.Value`, as far as we need it.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(oneof = "Kind", tags = "3, 5")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(message, tag = "5")]
    Struct(Struct),
}

impl Struct {
    pub fn of_texts<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let value = |text| Value { kind: Some(Kind::Text(text)) };
        Self { fields: fields.into_iter().map(|(k, v)| (k.to_owned(), value(v))).collect() }
    }
}

/// `envoy.config.core.v3.Metadata`.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    pub filter_metadata: BTreeMap<String, Struct>,
}

/// The metadata of an `envoy.config.cluster.v3.Cluster`: appended to an encoded cluster, it becomes
/// part of it (a message's fields may come in any order).
#[derive(Clone, PartialEq, Message)]
pub struct ClusterMetadata {
    #[prost(message, optional, tag = "25")]
    pub metadata: Option<Metadata>,
}

/// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
#[derive(Clone, PartialEq, Message)]
pub struct ClusterLoadAssignment {
    #[prost(string, tag = "1")]
    pub cluster_name: String,
    #[prost(message, repeated, tag = "2")]
    pub endpoints: Vec<LocalityLbEndpoints>,
}

#[derive(Clone, PartialEq, Message)]
pub struct LocalityLbEndpoints {
    #[prost(message, optional, tag = "1")]
    pub locality: Option<core::Locality>,
    #[prost(message, repeated, tag = "2")]
    pub lb_endpoints: Vec<LbEndpoint>,
    #[prost(uint32, tag = "5")]
    pub priority: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct LbEndpoint {
    #[prost(message, optional, tag = "1")]
    pub endpoint: Option<endpoint::Endpoint>,
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Metadata>,
}

/// `envoy.extensions.access_loggers.stream.v3.StdoutAccessLog` and `StderrAccessLog`.
#[derive(Clone, PartialEq, Message)]
pub struct StreamAccessLog {
    #[prost(message, optional, tag = "1")]
    pub log_format: Option<LogFormat>,
}

/// `envoy.config.core.v3.SubstitutionFormatString`.
#[derive(Clone, PartialEq, Message)]
pub struct LogFormat {
    #[prost(message, optional, tag = "2")]
    pub json_format: Option<Struct>,
    #[prost(message, optional, tag = "5")]
    pub text_format_source: Option<core::DataSource>,
}
