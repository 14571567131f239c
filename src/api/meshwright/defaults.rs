//! What a MeshInstallation means where it says nothing. The CRD carries the same values, so that the
//! API server shows them.

use super::{
    Compatibility, ControlPlane, Dns, Gateway, GatewayKind, GatewayPort, GatewayProtocol,
    Injection, MeshInstallationSpec, MeshSettings, Proxy, Redirection,
};

impl Default for MeshInstallationSpec {
    fn default() -> Self {
        Self {
            version: String::new(),
            revision: "default".to_owned(),
            tags: Vec::new(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            control_plane: ControlPlane::default(),
            proxy: Proxy::default(),
            injection: Injection::default(),
            redirection: Redirection::default(),
            dns: Dns::default(),
            gateways: Vec::new(),
            mesh: MeshSettings::default(),
            compatibility: Compatibility::default(),
        }
    }
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self { replicas: 1, resources: None }
    }
}

impl Default for Compatibility {
    fn default() -> Self {
        Self { istio_labels: true }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            name: String::new(),
            namespace: String::new(),
            kind: GatewayKind::default(),
            replicas: replicas(),
            service_type: None,
            ports: gateway_ports(),
            labels: std::collections::BTreeMap::default(),
        }
    }
}

pub(super) fn replicas() -> i32 {
    1
}

pub(super) fn gateway_ports() -> Vec<GatewayPort> {
    vec![
        GatewayPort { name: "http".to_owned(), port: 80, protocol: GatewayProtocol::Http },
        GatewayPort { name: "https".to_owned(), port: 443, protocol: GatewayProtocol::Https },
    ]
}
