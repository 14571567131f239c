//! Who a proxy says that it is.

use std::net::IpAddr;

use envoy_types::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, value::Kind},
};

use crate::{
    mesh::{Key, Labels, ProxyNode, ProxyRole},
    watch::snapshot::{Pod, Table},
    xds::names::AGENT_METADATA,
};

/// Why a node cannot be served.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the first request names no node")]
    Missing,
    #[error("node id {0:?} is not of the form ROLE~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN")]
    Malformed(String),
    #[error("node id {0:?} begins with a role other than sidecar and router")]
    Role(String),
}

/// Reads `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN` and the metadata that Meshwright's and
/// Istio's agents send.
pub fn parse(node: &Node) -> Result<ProxyNode, Error> {
    if node.id.is_empty() {
        return Err(Error::Missing);
    }
    let malformed = || Error::Malformed(node.id.clone());
    let mut parts = node.id.split('~');
    let (Some(role), Some(addresses), Some(pod), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed());
    };
    let role = match role {
        "sidecar" => ProxyRole::Sidecar,
        "router" => ProxyRole::Router,
        _ => return Err(Error::Role(node.id.clone())),
    };
    // Pods' names may hold dots, namespaces' may not.
    let (name, namespace) = pod.rsplit_once('.').ok_or_else(malformed)?;
    if name.is_empty() || namespace.is_empty() {
        return Err(malformed());
    }
    let metadata = node.metadata.as_ref();
    let workload = text(metadata, "WORKLOAD_NAME").or_else(|| {
        let (workload, _) = node.cluster.rsplit_once('.')?;
        Some(workload.to_owned())
    });
    let addresses = addresses.split(',').filter_map(|text| text.parse::<IpAddr>().ok());
    Ok(ProxyNode {
        role,
        key: Key::new(namespace, name),
        addresses: addresses.collect(),
        labels: labels(metadata),
        service_account: text(metadata, "SERVICE_ACCOUNT").unwrap_or_default().into(),
        workload: workload.unwrap_or_else(|| name.to_owned()).into(),
    })
}

/// The same with what the API server knows better, as soon as it is known.
pub fn resolve(claimed: &ProxyNode, pods: &Table<Pod>) -> ProxyNode {
    let mut node = claimed.clone();
    if let Some(pod) = pods.get(&claimed.key) {
        node.labels.clone_from(&pod.labels);
        node.service_account.clone_from(&pod.service_account);
        node.workload.clone_from(&pod.workload);
        if !pod.ips.is_empty() {
            node.addresses.clone_from(&pod.ips);
        }
    }
    node
}

/// Whether the stream is not a proxy's, but that of the agent beside it.
pub fn is_agent(node: &Node) -> bool {
    let value = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(AGENT_METADATA));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::BoolValue(agent)) => *agent,
        Some(Kind::StringValue(text)) => text == "true",
        _ => false,
    }
}

fn text(metadata: Option<&Struct>, name: &str) -> Option<String> {
    match metadata?.fields.get(name)?.kind.as_ref()? {
        Kind::StringValue(text) if !text.is_empty() => Some(text.clone()),
        _ => None,
    }
}

fn labels(metadata: Option<&Struct>) -> Labels {
    let kind = metadata.and_then(|m| m.fields.get("LABELS")).and_then(|value| value.kind.as_ref());
    let Some(Kind::StructValue(labels)) = kind else { return Labels::new() };
    let text = |(name, value): (&String, &envoy_types::pb::google::protobuf::Value)| match value
        .kind
        .as_ref()?
    {
        Kind::StringValue(text) => Some((name.clone(), text.clone())),
        _ => None,
    };
    labels.fields.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::google::protobuf::Value;

    use super::*;

    fn node(id: &str) -> Node {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let labels = Struct { fields: [("app".to_owned(), text("cart"))].into() };
        let fields = [
            ("SERVICE_ACCOUNT".to_owned(), text("cart")),
            ("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) }),
        ];
        Node {
            id: id.to_owned(),
            cluster: "cart.shop".to_owned(),
            metadata: Some(Struct { fields: fields.into() }),
            ..Node::default()
        }
    }

    #[test]
    fn reads_what_agents_send() {
        let got = parse(&node("sidecar~10.0.0.1~cart-0.v1.shop~shop.svc.cluster.local")).unwrap();
        assert_eq!(got.role, ProxyRole::Sidecar);
        assert_eq!(got.key, Key::new("shop", "cart-0.v1"));
        assert_eq!(got.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(got.labels["app"], "cart");
        assert_eq!((&*got.service_account, &*got.workload), ("cart", "cart"));
    }

    #[test]
    fn refuses_other_ids() {
        for id in [
            "",
            "envoy",
            "sidecar~10.0.0.1~pod~ns.svc",
            "ztunnel~1.1.1.1~p.n~n.svc",
            "sidecar~1.1.1.1~.n~n.svc",
            "sidecar~1~p.n~n.svc~more",
        ] {
            assert!(parse(&node(id)).is_err(), "{id}");
        }
    }

    #[test]
    fn agents_say_that_they_are() {
        let mut node = node("sidecar~10.0.0.1~cart-0.shop~shop.svc.cluster.local");
        assert!(!is_agent(&node));
        for (kind, agent) in [
            (Kind::BoolValue(true), true),
            (Kind::StringValue("true".to_owned()), true),
            (Kind::BoolValue(false), false),
        ] {
            let fields = &mut node.metadata.get_or_insert_default().fields;
            fields.insert(AGENT_METADATA.to_owned(), Value { kind: Some(kind) });
            assert_eq!(is_agent(&node), agent);
        }
    }

    #[test]
    fn the_api_server_knows_better() {
        let claimed = parse(&node("sidecar~10.0.0.1~cart-0.shop~shop.svc.cluster.local")).unwrap();
        let pod = Pod { service_account: "other".into(), ..Pod::default() };
        let pods = Arc::new([(Key::new("shop", "cart-0"), Arc::new(pod))].into());
        let got = resolve(&claimed, &pods);
        assert_eq!(&*got.service_account, "other");
        assert!(got.labels.is_empty());
        assert_eq!(got.addresses, claimed.addresses);
    }
}
