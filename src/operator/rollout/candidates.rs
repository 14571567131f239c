//! Which workloads are to be renewed, and in which order, by what is known of all proxies. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    plan::{Candidate, Tally},
    read::KINDS,
};
use crate::{
    api::meshwright::{FleetPolicy, MeshInstallation},
    operator::fleet::proxy::{Proxy, Workload},
    webhook::inject::decide::selector,
};

type Labels = BTreeMap<String, String>;

/// A revision's proxies, as a rollout sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Workloads with outdated proxies, in order.
    pub candidates: Vec<Candidate>,
    /// How many workloads have proxies that could be renewed.
    pub workloads: usize,
    pub tally: Tally,
    /// How many outdated proxies each candidate has.
    outdated: BTreeMap<Workload, usize>,
}

impl Fleet {
    /// `outdated`: those of the proxies that are to be renewed. `own`: workloads that the operator
    /// itself brings to the new image.
    pub fn new(
        proxies: &[Arc<Proxy>],
        outdated: &[Arc<Proxy>],
        policy: &FleetPolicy,
        namespaces: &BTreeMap<String, Labels>,
        own: &BTreeSet<Workload>,
    ) -> Self {
        let mut fleet = Self {
            candidates: Vec::new(),
            workloads: 0,
            tally: Tally::default(),
            outdated: BTreeMap::new(),
        };
        let outdated: BTreeSet<_> = outdated.iter().map(|proxy| proxy.uid.as_str()).collect();
        let mut workloads = BTreeSet::new();
        let owned = |proxy: &Proxy| proxy.workload.as_ref().is_some_and(|w| own.contains(w));
        for proxy in proxies.iter().filter(|proxy| !owned(proxy)) {
            fleet.tally.all += 1;
            let outdated = outdated.contains(proxy.uid.as_str());
            fleet.tally.renewed += usize::from(!outdated);
            let labels = namespaces.get(&proxy.namespace);
            if any(&policy.exclude_namespaces, labels) {
                fleet.tally.excluded += usize::from(outdated);
                continue;
            }
            match &proxy.workload {
                Some(workload) if KINDS.contains(&workload.kind.as_str()) => {
                    workloads.insert(workload);
                    if outdated {
                        *fleet.outdated.entry(workload.clone()).or_default() += 1;
                    }
                }
                _ if outdated => fleet.tally.unowned.push(name(proxy)),
                _ => {}
            }
        }
        fleet.workloads = workloads.len();
        fleet.tally.unowned.sort();
        fleet.tally.unowned.dedup();
        let group = |workload: &Workload| {
            let none = Labels::new();
            let labels = namespaces.get(&workload.namespace).unwrap_or(&none);
            let first = policy.order.iter().position(|wanted| selector::matches(wanted, labels));
            first.unwrap_or(policy.order.len())
        };
        let candidate =
            |workload: &Workload| Candidate { workload: workload.clone(), group: group(workload) };
        fleet.candidates = fleet.outdated.keys().map(candidate).collect();
        // Stable: within a group they stay sorted by kind, namespace and name.
        fleet.candidates.sort_by_key(|candidate| candidate.group);
        fleet
    }

    /// These are not to be renewed after all.
    pub fn leave_out(&mut self, workloads: &[Workload]) {
        self.candidates.retain(|candidate| !workloads.contains(&candidate.workload));
        let outdated = workloads.iter().filter_map(|workload| self.outdated.get(workload));
        self.tally.excluded += outdated.sum::<usize>();
    }
}

/// The Deployments of the installation's own gateways.
pub fn own_gateways(installation: &MeshInstallation, system: &str) -> BTreeSet<Workload> {
    let gateways = installation.spec.gateways.iter();
    gateways
        .map(|gateway| Workload {
            kind: "Deployment".to_owned(),
            namespace: if gateway.namespace.is_empty() {
                system.to_owned()
            } else {
                gateway.namespace.clone()
            },
            name: gateway.name.clone(),
        })
        .collect()
}

fn any(
    selectors: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector],
    labels: Option<&Labels>,
) -> bool {
    labels.is_some_and(|labels| selectors.iter().any(|wanted| selector::matches(wanted, labels)))
}

fn name(proxy: &Proxy) -> String {
    match &proxy.workload {
        Some(workload) => super::facts::text(workload),
        None => format!("Pod {}/{}", proxy.namespace, proxy.pod),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::fleet::proxy::{Configuration, ProxyKind};

    fn proxy(kind: &str, namespace: &str, name: &str, image: &str) -> Arc<Proxy> {
        Arc::new(Proxy {
            namespace: namespace.to_owned(),
            pod: format!("{name}-1"),
            uid: format!("{kind}/{namespace}/{name}"),
            revision: "default".to_owned(),
            workload: (!kind.is_empty()).then(|| Workload {
                kind: kind.to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            }),
            kind: ProxyKind::NativeSidecar,
            image: image.to_owned(),
            ready: true,
            configuration: Configuration::Current,
            certificate_ends: None,
        })
    }

    fn old(proxies: &[Arc<Proxy>]) -> Vec<Arc<Proxy>> {
        proxies.iter().filter(|proxy| proxy.image == "old").cloned().collect()
    }

    fn of(proxies: &[Arc<Proxy>]) -> Fleet {
        let policy = FleetPolicy::default();
        Fleet::new(proxies, &old(proxies), &policy, &BTreeMap::new(), &BTreeSet::new())
    }

    fn order(fleet: &Fleet) -> Vec<String> {
        fleet.candidates.iter().map(|c| super::super::facts::text(&c.workload)).collect()
    }

    #[test]
    fn chosen_namespaces_come_first_and_excluded_ones_not_at_all() {
        let policy: FleetPolicy = serde_json::from_value(json!({
            "order": [{"matchLabels": {"stage": "canary"}}],
            "excludeNamespaces": [{"matchLabels": {"frozen": "true"}}],
        }))
        .unwrap();
        let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        let namespaces = BTreeMap::from([
            ("zoo".to_owned(), labels("stage", "canary")),
            ("bank".to_owned(), labels("frozen", "true")),
            ("shop".to_owned(), Labels::new()),
        ]);
        let proxies = [
            proxy("Deployment", "shop", "b", "old"),
            proxy("Deployment", "shop", "a", "old"),
            proxy("Deployment", "shop", "c", "new"),
            proxy("Deployment", "bank", "d", "old"),
            proxy("StatefulSet", "zoo", "e", "old"),
            proxy("Deployment", "edge", "ingress", "old"),
        ];
        let own = BTreeSet::from([Workload {
            kind: "Deployment".to_owned(),
            namespace: "edge".to_owned(),
            name: "ingress".to_owned(),
        }]);
        let fleet = Fleet::new(&proxies, &old(&proxies), &policy, &namespaces, &own);
        assert_eq!(order(&fleet), ["StatefulSet zoo/e", "Deployment shop/a", "Deployment shop/b"]);
        assert_eq!(fleet.workloads, 4);
        let Tally { renewed, all, excluded, .. } = fleet.tally;
        assert_eq!((renewed, all, excluded), (1, 5, 1));
    }

    #[test]
    fn whom_nobody_restarts_is_named_once() {
        let proxies = [
            proxy("Job", "a", "import", "old"),
            proxy("Job", "a", "import", "old"),
            proxy("", "a", "debug", "old"),
            proxy("Rollout", "a", "web", "old"),
            proxy("Job", "a", "done", "new"),
        ];
        let fleet = of(&proxies);
        assert_eq!(fleet.tally.unowned, ["Job a/import", "Pod a/debug-1", "Rollout a/web"]);
        assert!(fleet.candidates.is_empty());
    }

    #[test]
    fn what_is_left_out_later_counts_too() {
        let proxies = [proxy("Deployment", "a", "x", "old"), proxy("Deployment", "a", "x", "old")];
        let mut fleet = of(&proxies);
        let workload = fleet.candidates[0].workload.clone();
        fleet.leave_out(&[workload]);
        assert!(fleet.candidates.is_empty());
        assert_eq!(fleet.tally.excluded, 2);
    }
}
