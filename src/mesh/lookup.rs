//! Questions that plans ask of the mesh.

use std::sync::Arc;

use super::{DestinationPolicy, Labels, Mesh, PeerPolicy, PeerTls, Service, names};

impl Mesh {
    /// The service of a full host name.
    pub fn service(&self, host: &str) -> Option<&Arc<Service>> {
        self.services.get(host)
    }

    /// What holds for a host where a client of this namespace calls it: the DestinationRule of the
    /// client's namespace, else of the service's, else of the system namespace.
    pub fn destination_policy(
        &self,
        host: &str,
        client_namespace: &str,
    ) -> Option<&Arc<DestinationPolicy>> {
        let service_namespace = self.services.get(host).map(|s| &*s.key.namespace);
        let namespaces =
            [Some(client_namespace), service_namespace, Some(&*self.config.system_namespace)];
        namespaces.into_iter().flatten().find_map(|namespace| {
            self.destination_policies(host).find(|policy| {
                &*policy.namespace == namespace && policy.visibility.includes(client_namespace)
            })
        })
    }

    /// All that DestinationRules say about a host, those with the most specific host first.
    pub fn destination_policies(
        &self,
        host: &str,
    ) -> impl Iterator<Item = &Arc<DestinationPolicy>> {
        let wildcards = host.match_indices('.').map(|(dot, _)| format!("*{}", &host[dot..]));
        let names = std::iter::once(host.to_owned()).chain(wildcards).chain(["*".to_owned()]);
        let found: Vec<_> =
            names.filter_map(|name| self.destinations.get(name.as_str())).flatten().collect();
        found.into_iter()
    }

    /// What a pod accepts on a port: the policy for the workload, else for its namespace, else for
    /// the mesh, else both plaintext and mutual TLS.
    /// `port` is the container's; `None` is any port that no policy names.
    pub fn peer_tls(&self, labels: &Labels, namespace: &str, port: Option<u16>) -> PeerTls {
        peer_tls(&self.peer_authentication, labels, namespace, port)
    }

    /// The policies that hold for a pod, most specific first.
    pub fn peer_policies<'a>(
        &'a self,
        labels: &'a Labels,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a PeerPolicy> {
        let all = self.peer_authentication.iter().map(AsRef::as_ref);
        all.filter(move |policy| policy.applies_to(labels, namespace))
    }
}

/// As [`Mesh::peer_tls`], by policies that are not in a mesh yet.
pub(super) fn peer_tls(
    policies: &[Arc<PeerPolicy>],
    labels: &Labels,
    namespace: &str,
    port: Option<u16>,
) -> PeerTls {
    policies
        .iter()
        .filter(|policy| policy.applies_to(labels, namespace))
        .find_map(|policy| {
            let own = port.and_then(|number| policy.ports.get(&number).copied().flatten());
            own.or(policy.mode)
        })
        .unwrap_or_default()
}

impl PeerPolicy {
    fn applies_to(&self, labels: &Labels, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
            && selects(&self.selector, labels)
    }
}

/// Whether labels have all that a selector asks for.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

impl Mesh {
    /// "Did you mean …": what to add to a message about a host that does not exist.
    pub(super) fn suggestion(&self, host: &str) -> String {
        let known = self.services.keys().map(|host| &**host);
        match names::similar(host, known).as_slice() {
            [] => "create the Service, or correct the name".to_owned(),
            [one] => format!("did you mean {one}?"),
            several => format!("did you mean one of {}?", several.join(", ")),
        }
    }
}
