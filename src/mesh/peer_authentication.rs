//! PeerAuthentications → [`PeerPolicy`]s.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    MeshConfig, PeerPolicy, PeerTls, by_age,
    report::{Path, Report},
};
use crate::{
    api::istio::security::{MutualTls, MutualTlsMode, PeerAuthentication},
    diagnostic::Diagnostic,
    watch::Snapshot,
};

/// All policies, the most specific first, and of equals the oldest.
pub fn build(
    snapshot: &Snapshot,
    config: &MeshConfig,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Arc<PeerPolicy>> {
    let mut policies: Vec<Arc<PeerPolicy>> = Vec::new();
    for object in by_age(&snapshot.peer_authentications) {
        let (policy, mut report) = convert(object, &config.system_namespace);
        let rival = policies
            .iter()
            .find(|older| older.namespace == policy.namespace && older.selector == policy.selector);
        if let Some(older) = rival {
            let message = format!(
                "{} is for the same pods and older, so this one has no effect: delete one of them",
                older.origin
            );
            report.error(&Path::SPEC.field("selector"), "Conflict", message);
        }
        diagnostics.append(&mut report.diagnostics);
        policies.push(Arc::new(policy));
    }
    policies.sort_by_key(|policy| (policy.selector.is_empty(), policy.namespace.is_none()));
    policies
}

/// One object's policy.
pub fn convert(object: &PeerAuthentication, system_namespace: &str) -> (PeerPolicy, Report) {
    let mut report = Report::new(object, "security.istio.io/v1", "PeerAuthentication");
    let spec = &object.spec;
    report.unsupported(&Path::SPEC, &spec.unsupported);
    let selector = spec.selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default();
    let namespace = report.object.namespace.as_str();
    let mesh_wide = selector.is_empty() && namespace == system_namespace;
    let policy = PeerPolicy {
        origin: report.object.clone(),
        namespace: (!mesh_wide).then(|| namespace.into()),
        mode: spec.mtls.as_ref().and_then(mode),
        ports: ports(&spec.port_level_mtls, selector.is_empty(), &mut report),
        selector,
    };
    (policy, report)
}

fn ports(
    by_port: &BTreeMap<String, MutualTls>,
    no_selector: bool,
    report: &mut Report,
) -> BTreeMap<u16, Option<PeerTls>> {
    let path = Path::SPEC.field("portLevelMtls");
    if no_selector && !by_port.is_empty() {
        let message = "needs spec.selector.matchLabels: port numbers belong to particular pods";
        report.error(&path, "SelectorMissing", message);
        return BTreeMap::new();
    }
    let mut ports = BTreeMap::new();
    for (number, tls) in by_port {
        match number.parse::<u16>() {
            Ok(number) if number > 0 => {
                ports.insert(number, mode(tls));
            }
            _ => report.error(&path.key(number), "InvalidPort", "is no port number (1 to 65535)"),
        }
    }
    ports
}

fn mode(tls: &MutualTls) -> Option<PeerTls> {
    match tls.mode {
        MutualTlsMode::Unset => None,
        MutualTlsMode::Disable => Some(PeerTls::Disabled),
        MutualTlsMode::Permissive => Some(PeerTls::Permissive),
        MutualTlsMode::Strict => Some(PeerTls::Strict),
    }
}
