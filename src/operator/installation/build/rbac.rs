//! What the control plane may do. The operator must hold all of it itself (the API server lets
//! nobody grant more than they have): the chart's ClusterRole repeats these rules, and a test
//! compares the two.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};

use super::{Validated, metadata};
use crate::{
    control_plane::LEASE,
    operator::objects::{Objects, Prepared},
    webhook::inject::container::ROOT_CONFIG_MAP,
};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE_STATUS: &[&str] = &["patch", "update"];

pub(super) fn build(valid: &Validated, objects: &mut Objects<Prepared>) {
    let name = &valid.control_plane.name;
    let cluster = || metadata(valid, name, None, &valid.owner);
    let local = || metadata(valid, name, Some(&valid.namespace), &valid.owner);
    let subjects = || {
        Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: name.clone(),
            namespace: Some(valid.namespace.clone()),
            api_group: None,
        }])
    };
    let role = |kind: &str| RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: kind.to_owned(),
        name: name.clone(),
    };
    objects.cluster_roles.push(ClusterRole {
        metadata: cluster(),
        rules: Some(cluster_rules()),
        aggregation_rule: None,
    });
    objects.cluster_role_bindings.push(ClusterRoleBinding {
        metadata: cluster(),
        role_ref: role("ClusterRole"),
        subjects: subjects(),
    });
    objects.roles.push(Role { metadata: local(), rules: Some(namespace_rules()) });
    objects.role_bindings.push(RoleBinding {
        metadata: local(),
        role_ref: role("Role"),
        subjects: subjects(),
    });
}

fn cluster_rules() -> Vec<PolicyRule> {
    vec![
        // Services and what is behind them.
        rule(&[""], &["namespaces", "nodes", "pods", "services"], READ),
        rule(&["discovery.k8s.io"], &["endpointslices"], READ),
        // Certificates of gateways. Roles cannot name a type of Secret; the watch asks for
        // kubernetes.io/tls only.
        rule(&[""], &["secrets"], &["list", "watch"]),
        // The mesh's root certificate, which pods of every namespace mount.
        named(&[""], &["configmaps"], &["list", "watch", "create", "patch"], &[ROOT_CONFIG_MAP]),
        // Whether a pod that asks for a certificate is who it says.
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        // Configuration, and what became of it.
        rule(
            &["networking.istio.io"],
            &["destinationrules", "gateways", "serviceentries", "virtualservices"],
            READ,
        ),
        rule(
            &["networking.istio.io"],
            &[
                "destinationrules/status",
                "gateways/status",
                "serviceentries/status",
                "virtualservices/status",
            ],
            WRITE_STATUS,
        ),
        rule(&["security.istio.io"], &["peerauthentications"], READ),
        rule(&["security.istio.io"], &["peerauthentications/status"], WRITE_STATUS),
        rule(
            &["gateway.networking.k8s.io"],
            &["gatewayclasses", "gateways", "httproutes", "referencegrants"],
            READ,
        ),
        rule(
            &["gateway.networking.k8s.io"],
            &["gatewayclasses/status", "gateways/status", "httproutes/status"],
            WRITE_STATUS,
        ),
        // Settings of the mesh.
        rule(&["meshwright.dev"], &["meshinstallations"], READ),
        // Whether all of them take effect.
        rule(&["meshwright.dev"], &["meshinstallations/status"], WRITE_STATUS),
    ]
}

/// In the namespace of the control plane alone.
fn namespace_rules() -> Vec<PolicyRule> {
    vec![
        // The CA's key. A name cannot be asked for before it exists, so making it is a rule of its own.
        rule(&[""], &["secrets"], &["create"]),
        named(&[""], &["secrets"], &["get"], &["meshwright-ca"]),
        // Which replica, of all revisions, writes status.
        rule(&["coordination.k8s.io"], &["leases"], &["create"]),
        named(&["coordination.k8s.io"], &["leases"], &["get", "update"], &[LEASE]),
    ]
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn named(groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]) -> PolicyRule {
    PolicyRule {
        resource_names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..rule(groups, resources, verbs)
    }
}
