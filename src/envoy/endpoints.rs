//! Endpoints: the path that most changes take, so it reads the table of endpoints and nothing else.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::{core::v3 as core, endpoint::v3 as pb};
use prost::Message;

use super::{
    cluster::{METADATA, SOCKET_MATCH},
    message::address,
    ordered::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints, Metadata, Struct},
};
use crate::{
    mesh::{EdsName, Endpoint, EndpointState, EndpointTable, Locality},
    xds::Resource,
};

/// The endpoints that `name` selects; `None` where there is no such service.
pub fn endpoints(name: &EdsName, table: &EndpointTable) -> Option<Resource> {
    let service = table.get(&name.host)?;
    let all = service.ports.get(&name.port).map(Vec::as_slice).unwrap_or_default();
    let selected =
        all.iter().filter(|e| name.labels.iter().all(|(k, v)| e.labels.get(k) == Some(v)));
    let text = name.to_string();
    let message = ClusterLoadAssignment {
        cluster_name: text.clone(),
        endpoints: by_priority(&selected.collect::<Vec<_>>()),
    };
    Some(Resource::from_encoded(&text, message.encode_to_vec()))
}

/// Endpoints that drain take load only when no others are left: they come at a priority of their
/// own. (A health status would not do: with half the endpoints draining, Envoy would panic and use
/// all.)
fn by_priority(endpoints: &[&Endpoint]) -> Vec<LocalityLbEndpoints> {
    let any_ready = endpoints.iter().any(|e| e.state == EndpointState::Ready);
    let mut groups: BTreeMap<(u32, Option<&Locality>), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in endpoints {
        let draining = endpoint.state == EndpointState::Draining;
        let priority = u32::from(draining && any_ready);
        groups.entry((priority, endpoint.locality.as_ref())).or_default().push(endpoint);
    }
    groups
        .into_iter()
        .map(|((priority, locality), mut endpoints)| {
            endpoints.sort_by_key(|e| (e.address, e.port));
            endpoints.dedup_by_key(|e| (e.address, e.port));
            LocalityLbEndpoints {
                locality: locality.map(|locality| core::Locality {
                    region: locality.region.to_string(),
                    zone: locality.zone.to_string(),
                    sub_zone: String::new(),
                }),
                lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
                priority,
            }
        })
        .collect()
}

fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let workload = Struct::of_texts([
        ("workload", endpoint.workload.to_string()),
        ("namespace", endpoint.namespace.to_string()),
    ]);
    let tls = || Struct::of_texts([("tlsMode", "istio".to_owned())]);
    let mut metadata = BTreeMap::from([(METADATA.to_owned(), workload)]);
    if endpoint.meshed {
        metadata.insert(SOCKET_MATCH.to_owned(), tls());
    }
    LbEndpoint {
        endpoint: Some(pb::Endpoint {
            address: Some(address(endpoint.address, endpoint.port)),
            ..pb::Endpoint::default()
        }),
        metadata: Some(Metadata { filter_metadata: metadata }),
    }
}
