//! Delta ADS as far as a client without Envoy's types needs it. The messages of `envoy-types` hold
//! all that a node may say about itself; encoding them would link hundreds of types into each pod.

use std::collections::HashMap;

use bytes::Bytes;
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

/// The method's path.
pub(super) const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// `envoy.service.discovery.v3.DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<Node>,
    #[prost(string, tag = "2")]
    pub(super) type_url: String,
    #[prost(string, repeated, tag = "3")]
    pub(super) resource_names_subscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    pub(super) initial_resource_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    pub(super) response_nonce: String,
    #[prost(message, optional, tag = "7")]
    pub(super) error_detail: Option<Status>,
}

/// `envoy.config.core.v3.Node`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) cluster: String,
    #[prost(message, optional, tag = "3")]
    pub(super) metadata: Option<Struct>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Response {
    #[prost(message, repeated, tag = "2")]
    pub(super) resources: Vec<Resource>,
    #[prost(string, tag = "4")]
    pub(super) type_url: String,
    #[prost(string, tag = "5")]
    pub(super) nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub(super) removed_resources: Vec<String>,
}

/// `envoy.service.discovery.v3.Resource`.
#[expect(clippy::struct_field_names, reason = "the protocol's name")]
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Resource {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(message, optional, tag = "2")]
    pub(super) resource: Option<Any>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

impl Node {
    /// From a node as it stands in Envoy's bootstrap.
    pub(super) fn from_json(node: &serde_json::Value) -> Self {
        let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
        let metadata = node["metadata"].as_object().map(structure);
        Self { id: text("id"), cluster: text("cluster"), metadata }
    }
}

fn structure(object: &serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: object.iter().map(|(name, json)| (name.clone(), value(json))).collect() }
}

fn value(json: &serde_json::Value) -> Value {
    let kind = match json {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(*value),
        serde_json::Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        serde_json::Value::String(value) => Kind::StringValue(value.clone()),
        serde_json::Value::Array(values) => {
            Kind::ListValue(ListValue { values: values.iter().map(value).collect() })
        }
        serde_json::Value::Object(object) => Kind::StructValue(structure(object)),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3 as real;
    use prost::Message;

    use super::*;

    #[test]
    fn says_what_envoys_own_messages_say() {
        let node = serde_json::json!({
            "id": "sidecar~1", "cluster": "cart.shop",
            "metadata": {"AGENT": true, "LABELS": {"app": "cart"}, "N": 1.5, "L": ["a"], "X": null},
        });
        let sent = Request {
            node: Some(Node::from_json(&node)),
            type_url: "t".to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: [("a".to_owned(), "1".to_owned())].into(),
            response_nonce: "n".to_owned(),
            error_detail: Some(Status { code: 3, message: "no".to_owned() }),
        };
        let got = real::DeltaDiscoveryRequest::decode(&*sent.encode_to_vec()).unwrap();
        let got_node = got.node.unwrap();
        assert_eq!((&*got_node.id, &*got_node.cluster), ("sidecar~1", "cart.shop"));
        let metadata = got_node.metadata.unwrap().fields;
        assert_eq!(metadata["AGENT"].kind, Some(Kind::BoolValue(true)));
        assert_eq!(metadata.len(), 5);
        assert_eq!(got.resource_names_subscribe, ["*"]);
        assert_eq!(got.initial_resource_versions["a"], "1");
        assert_eq!((&*got.type_url, &*got.response_nonce), ("t", "n"));
        assert_eq!(got.error_detail.unwrap().message, "no");
    }

    #[test]
    fn understands_what_envoys_own_messages_say() {
        let any = envoy_types::pb::google::protobuf::Any { type_url: "t".into(), value: vec![7] };
        let sent = real::DeltaDiscoveryResponse {
            resources: vec![real::Resource {
                name: "a".to_owned(),
                version: "2".to_owned(),
                resource: Some(any),
                ..real::Resource::default()
            }],
            removed_resources: vec!["b".to_owned()],
            type_url: "t".to_owned(),
            nonce: "n".to_owned(),
            ..real::DeltaDiscoveryResponse::default()
        };
        let got = Response::decode(&*sent.encode_to_vec()).unwrap();
        assert_eq!((&*got.type_url, &*got.nonce), ("t", "n"));
        assert_eq!(got.removed_resources, ["b"]);
        let [resource] = &got.resources[..] else { panic!("one resource: {got:?}") };
        assert_eq!((&*resource.name, &*resource.version), ("a", "2"));
        assert_eq!(*resource.resource.as_ref().unwrap().value, [7]);
    }
}
