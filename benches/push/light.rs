//! The protocol's messages with only the fields that a simulated proxy reads: it costs a fraction
//! of decoding them whole.

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
#[expect(clippy::struct_field_names, reason = "the protocol's name")]
pub struct Resource {
    #[prost(string, tag = "1")]
    pub version: String,
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Cluster {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub eds: Option<Eds>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Eds {
    #[prost(string, tag = "2")]
    pub service_name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Listener {
    #[prost(message, repeated, tag = "3")]
    pub filter_chains: Vec<FilterChain>,
    #[prost(message, optional, tag = "25")]
    pub default_filter_chain: Option<FilterChain>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct FilterChain {
    #[prost(message, repeated, tag = "3")]
    pub filters: Vec<Filter>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Filter {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "4")]
    pub typed_config: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConnectionManager {
    #[prost(message, optional, tag = "3")]
    pub rds: Option<Rds>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Rds {
    #[prost(string, tag = "2")]
    pub route_config_name: String,
}
