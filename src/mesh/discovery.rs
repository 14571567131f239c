//! Namespaces that the mesh does not see.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{
    Key, config,
    report::{Path, Report},
};
use crate::{
    api::meshwright::MeshSettings,
    watch::{Snapshot, snapshot::Table},
    webhook::inject::decide::selector,
};

/// The snapshot without the namespaces that `discoverySelectors` leave out.
pub fn visible(snapshot: &Snapshot) -> Snapshot {
    let mut seen = snapshot.clone();
    let Some(installation) = &snapshot.installation else { return seen };
    let selectors = &installation.spec.mesh.discovery_selectors;
    // Wrong ones are reported; if none is left, hiding everything would be the worst reading.
    let selectors: Vec<_> = selectors.iter().filter(|one| problem(one).is_none()).collect();
    if selectors.is_empty() {
        return seen;
    }
    let root = config::build(snapshot).system_namespace;
    let is_seen = |name: &str| {
        let key = Key::new("", name);
        let labels = snapshot.namespaces.get(&key).map(|namespace| namespace.labels.clone());
        let labels = labels.unwrap_or_default();
        name.is_empty()
            || *name == *root
            || *name == *snapshot.system_namespace
            || selectors.iter().any(|selector| selector::matches(selector, &labels))
    };
    let mut known: BTreeMap<Arc<str>, bool> = BTreeMap::new();
    let mut is_seen = |key: &Key| -> bool {
        *known.entry(key.namespace.clone()).or_insert_with(|| is_seen(&key.namespace))
    };
    only(&mut seen.services, &mut is_seen);
    only(&mut seen.pods, &mut is_seen);
    only(&mut seen.endpoint_slices, &mut is_seen);
    only(&mut seen.tls_secrets, &mut is_seen);
    only(&mut seen.virtual_services, &mut is_seen);
    only(&mut seen.destination_rules, &mut is_seen);
    only(&mut seen.istio_gateways, &mut is_seen);
    only(&mut seen.service_entries, &mut is_seen);
    only(&mut seen.peer_authentications, &mut is_seen);
    only(&mut seen.gateways, &mut is_seen);
    only(&mut seen.http_routes, &mut is_seen);
    only(&mut seen.reference_grants, &mut is_seen);
    seen
}

fn only<T>(table: &mut Table<T>, is_seen: &mut impl FnMut(&Key) -> bool) {
    if !table.keys().all(&mut *is_seen) {
        Arc::make_mut(table).retain(|key, _| is_seen(key));
    }
}

/// Says which selectors can never match.
pub(super) fn check(mesh: &MeshSettings, report: &mut Report) {
    let path = config::MESH.field("discoverySelectors");
    for (index, one) in mesh.discovery_selectors.iter().enumerate() {
        let path = path.index(index);
        if let Some((field, problem)) = problem(one) {
            report.error(&Path::Field(&path, &field), "InvalidSelector", problem);
        }
    }
}

fn problem(one: &LabelSelector) -> Option<(String, String)> {
    if *one == LabelSelector::default() {
        let message = "say which labels namespaces must have; without selectors, all are seen";
        return Some(("matchLabels".to_owned(), message.to_owned()));
    }
    selector::problem(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::from_yaml;

    fn seen(selectors: &str) -> Vec<String> {
        let text = format!(
            "
apiVersion: meshwright.dev/v1alpha1
kind: MeshInstallation
metadata: {{name: default}}
spec: {{mesh: {{discoverySelectors: {selectors}}}}}
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{team: a}}}}}}
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: bank, labels: {{team: b}}}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: cart, namespace: shop}}, spec: {{}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: till, namespace: bank}}, spec: {{}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: mesh, namespace: meshwright-system}}, spec: {{}}}}
"
        );
        let snapshot = visible(&from_yaml(&text).unwrap());
        snapshot.services.keys().map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn only_selected_namespaces_and_the_root_are_seen() {
        assert_eq!(seen("[]"), ["till", "mesh", "cart"]);
        assert_eq!(seen("[{matchLabels: {team: a}}]"), ["mesh", "cart"]);
        let either = "[{matchLabels: {team: a}}, {matchLabels: {team: b}}]";
        assert_eq!(seen(either), ["till", "mesh", "cart"]);
        let not = "[{matchExpressions: [{key: team, operator: NotIn, values: [a]}]}]";
        assert_eq!(seen(not), ["till", "mesh"]);
    }

    #[test]
    fn a_selector_that_is_none_hides_nothing() {
        let wrong = "[{matchExpressions: [{key: team, operator: Is}]}]";
        assert_eq!(seen(wrong), ["till", "mesh", "cart"]);
    }
}
