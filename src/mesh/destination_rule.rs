//! DestinationRules → [`DestinationPolicy`]s.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use super::{
    ClientTls, DestinationPolicy, Host, LoadBalancing, Mesh, MeshConfig, Service, Subset,
    TrafficPolicy, by_age, names,
    report::{OrReport, Path, Report},
};
use crate::{
    api::istio::networking::{DestinationRule, destination_rule as api},
    diagnostic::Diagnostic,
    watch::Snapshot,
};

/// All policies by host.
pub fn build(
    snapshot: &Snapshot,
    mesh: &Mesh,
    diagnostics: &mut Vec<Diagnostic>,
) -> BTreeMap<Host, Vec<Arc<DestinationPolicy>>> {
    let mut by_host: BTreeMap<Host, Vec<DestinationPolicy>> = BTreeMap::new();
    for object in by_age(&snapshot.destination_rules) {
        let (converted, mut report) = convert(object, &mesh.config, Some(&mesh.services));
        if let Some((host, policy)) = converted {
            let known = host.starts_with('*') || mesh.services.contains_key(&host);
            if !known {
                let message = format!("there is no service {host}: {}", mesh.suggestion(&host));
                report.error(&Path::SPEC.field("host"), "HostNotFound", message);
            }
            insert(by_host.entry(host).or_default(), policy, &mut report);
        }
        diagnostics.append(&mut report.diagnostics);
    }
    by_host
        .into_iter()
        .map(|(host, policies)| (host, policies.into_iter().map(Arc::new).collect()))
        .collect()
}

/// Adds a policy, or joins its subsets to an older one for the same host and the same clients.
fn insert(policies: &mut Vec<DestinationPolicy>, policy: DestinationPolicy, report: &mut Report) {
    let older = policies
        .iter_mut()
        .find(|p| p.namespace == policy.namespace && p.visibility == policy.visibility);
    let Some(older) = older else { return policies.push(policy) };
    if policy.policy != TrafficPolicy::default() && policy.policy != older.policy {
        let message = format!(
            "{} sets the policy of this host already, and is older: only the subsets take effect",
            older.origin
        );
        report.error(&Path::SPEC.field("trafficPolicy"), "Conflict", message);
    }
    for (name, subset) in policy.subsets {
        match older.subsets.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(subset);
            }
            Entry::Occupied(entry) => {
                let name = entry.key();
                let message = format!("{} has a subset {name} already, and is older", older.origin);
                report.error(&Path::SPEC.field("subsets"), "Conflict", message);
            }
        }
    }
}

/// One object's policy, with the host that it is for.
pub fn convert(
    object: &DestinationRule,
    config: &MeshConfig,
    services: Option<&BTreeMap<Host, Arc<Service>>>,
) -> (Option<(Host, DestinationPolicy)>, Report) {
    let mut report = Report::new(object, "networking.istio.io/v1", "DestinationRule");
    let spec = &object.spec;
    report.unsupported(&Path::SPEC, &spec.unsupported);
    let namespace = report.object.namespace.clone();
    let host = names::resolve(&spec.host, &namespace, config, services).or_report(
        &mut report,
        &Path::SPEC.field("host"),
        "InvalidHost",
    );
    let path = Path::SPEC.field("trafficPolicy");
    let policy = traffic_policy(spec.traffic_policy.as_ref(), &path, &mut report);
    let subsets = subsets(&spec.subsets, policy, &mut report);
    let policy = DestinationPolicy {
        origin: report.object.clone(),
        namespace: namespace.as_str().into(),
        visibility: names::export_to_or(
            spec.export_to.iter().map(String::as_str),
            &config.default_exports.destination_rules,
            &namespace,
        ),
        policy,
        subsets,
    };
    (host.map(|host| (host, policy)), report)
}

fn subsets(
    list: &[api::Subset],
    inherited: TrafficPolicy,
    report: &mut Report,
) -> BTreeMap<String, Subset> {
    let path = Path::SPEC.field("subsets");
    let mut subsets = BTreeMap::new();
    for (i, subset) in list.iter().enumerate() {
        let path = path.index(i);
        report.unsupported(&path, &subset.unsupported);
        let name = path.field("name");
        if subset.name.is_empty() {
            report.error(&name, "NameMissing", "give the subset a name that routes can use");
            continue;
        }
        if subsets.contains_key(&subset.name) {
            let message = format!("there is a subset {} already in this object", subset.name);
            report.error(&name, "Conflict", message);
            continue;
        }
        let policy_path = path.field("trafficPolicy");
        let own = traffic_policy(subset.traffic_policy.as_ref(), &policy_path, report);
        let policy = TrafficPolicy {
            load_balancing: own.load_balancing.or(inherited.load_balancing),
            tls: own.tls.or(inherited.tls),
        };
        subsets.insert(subset.name.clone(), Subset { labels: subset.labels.clone(), policy });
    }
    subsets
}

fn traffic_policy(
    policy: Option<&api::TrafficPolicy>,
    path: &Path<'_>,
    report: &mut Report,
) -> TrafficPolicy {
    let Some(policy) = policy else { return TrafficPolicy::default() };
    report.unsupported(path, &policy.unsupported);
    let balancer = policy.load_balancer.as_ref();
    let tls = policy.tls.as_ref();
    TrafficPolicy {
        load_balancing: balancer
            .and_then(|balancer| load_balancing(balancer, &path.field("loadBalancer"), report)),
        tls: tls.and_then(|tls| client_tls(tls, &path.field("tls"), report)),
    }
}

fn load_balancing(
    balancer: &api::LoadBalancer,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<LoadBalancing> {
    report.unsupported(path, &balancer.unsupported);
    Some(match balancer.simple.as_deref()? {
        "UNSPECIFIED" => return None,
        "ROUND_ROBIN" => LoadBalancing::RoundRobin,
        "LEAST_REQUEST" | "LEAST_CONN" => LoadBalancing::LeastRequest,
        "RANDOM" => LoadBalancing::Random,
        other => {
            let consequence =
                format!("{other} has no effect, use ROUND_ROBIN, LEAST_REQUEST or RANDOM");
            report.unsupported_field(&path.field("simple"), &consequence);
            return None;
        }
    })
}

fn client_tls(tls: &api::ClientTls, path: &Path<'_>, report: &mut Report) -> Option<ClientTls> {
    report.unsupported(path, &tls.unsupported);
    let mode = path.field("mode");
    match tls.mode.as_deref() {
        // Istio's default, too.
        None | Some("DISABLE") => Some(ClientTls::Disable),
        Some("ISTIO_MUTUAL") => Some(ClientTls::Mesh),
        Some(other) => {
            let consequence = format!(
                "{other} has no effect, use ISTIO_MUTUAL or DISABLE, or leave tls \
                 out for mutual TLS wherever the destination can"
            );
            report.unsupported_field(&mode, &consequence);
            None
        }
    }
}
