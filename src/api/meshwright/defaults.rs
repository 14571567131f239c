//! What a MeshInstallation means where it says nothing. The CRD carries the same values, so that the
//! API server shows them.

use super::{
    Compatibility, ControlPlane, Dns, FleetPolicy, Gateway, GatewayKind, GatewayPort,
    GatewayProtocol, Injection, MeshInstallationSpec, MeshSettings, Placement, Profile, Proxy,
    Redirection,
};

impl Default for MeshInstallationSpec {
    fn default() -> Self {
        Self {
            version: String::new(),
            revision: "default".to_owned(),
            tags: Vec::new(),
            profile: Profile::default(),
            trust_domain: "cluster.local".to_owned(),
            cluster_domain: "cluster.local".to_owned(),
            control_plane: ControlPlane::default(),
            proxy: Proxy::default(),
            injection: Injection::default(),
            redirection: Redirection::default(),
            dns: Dns::default(),
            fleet: FleetPolicy::default(),
            gateways: Vec::new(),
            mesh: MeshSettings::default(),
            compatibility: Compatibility::default(),
        }
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
            replicas: None,
            autoscaling: None,
            disruption_budget: None,
            placement: Placement::default(),
            resources: None,
            service_type: None,
            ports: gateway_ports(),
            labels: std::collections::BTreeMap::default(),
            patches: Vec::new(),
        }
    }
}

pub(super) fn gateway_ports() -> Vec<GatewayPort> {
    vec![
        GatewayPort { name: "http".to_owned(), port: 80, protocol: GatewayProtocol::Http },
        GatewayPort { name: "https".to_owned(), port: 443, protocol: GatewayProtocol::Https },
    ]
}
