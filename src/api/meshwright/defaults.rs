//! What a MeshInstallation means where it says nothing. The CRD carries the same values, so that the
//! API server shows them.

use super::{
    Compatibility, ControlPlane, Dns, FleetPolicy, GatewayPort, GatewayProtocol, Injection,
    MeshInstallationSpec, MeshSettings, Profile, Proxy, Redirection,
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

pub(super) fn gateway_ports() -> Vec<GatewayPort> {
    let port = |name: &str, port, protocol| GatewayPort {
        name: name.to_owned(),
        port,
        protocol,
        ..GatewayPort::default()
    };
    vec![port("http", 80, GatewayProtocol::Http), port("https", 443, GatewayProtocol::Https)]
}
