//! The mesh goes without a trace. Runs last: the cluster has no mesh afterwards.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{
    client::{Client, Outcome},
    manifest::{self, Port, Workload},
    testbed::{self, SYSTEM},
};
use crate::{
    cluster::{Cluster, wait_for},
    deploy::{self, Source},
};

const NAMESPACE: &str = "removal-tests";
const PATIENCE: Duration = Duration::from_mins(2);
/// Groups whose definitions the chart keeps unless it is told not to.
const KEPT: [&str; 3] = [".meshwright.dev", ".networking.istio.io", ".security.istio.io"];
/// Kinds that no listing has: they come and go without the mesh, or are no objects.
const PASSING: [&str; 4] = [
    "events",
    "events.events.k8s.io",
    "componentstatuses",
    "certificatesigningrequests.certificates.k8s.io",
];

/// `helm uninstall` is refused under proxies, takes everything but the definitions otherwise, and the
/// definitions too where that is asked for. Compared with a listing of all objects of the API.
pub fn leaves_nothing(cluster: &Cluster) -> Result<()> {
    let source = source(cluster)?;
    // Few pods are named in a refusal: ours are to be the only ones.
    leave_the_mesh(cluster)?;
    use_it(cluster)?;
    uninstall_is_refused(cluster)?;
    leave_the_mesh(cluster)?;
    // The installation is there: uninstalling deletes it, while there is an operator to do it.
    uninstall(cluster)?;
    let before = settled(cluster, &BTreeSet::new())?;
    let strange: Vec<_> = before.iter().filter(|object| is_ours(object)).collect();
    ensure!(strange.is_empty(), "left by helm uninstall: {strange:?}");

    deploy::chart(cluster, &source)?;
    deploy::change_values(cluster, "crds.keep=false")?;
    cluster.apply(deploy::INSTALLATION)?;
    let ready = ["wait", "meshinstallation/default", "--for=condition=Ready", "--timeout=120s"];
    cluster.kubectl(&ready)?;
    use_it(cluster)?;
    leave_the_mesh(cluster)?;
    cluster.kubectl(&["delete", "meshinstallation", "default", "--timeout=120s"])?;
    no_webhook(cluster)?;
    uninstall(cluster)?;
    let expected: BTreeSet<String> =
        before.into_iter().filter(|object| !is_kept_definition(object)).collect();
    settled(cluster, &expected).map(drop)
}

/// What is installed.
fn source(cluster: &Cluster) -> Result<Source> {
    let operator = ["get", "deployment", "meshwright-operator", "--namespace", SYSTEM];
    let operator = cluster.kubectl_json(&operator)?;
    let images = deploy::images(&operator["spec"]["template"]["spec"]);
    let image = images.first().context("the operator has no image")?;
    let (registry, name) = image.rsplit_once('/').context("the image has no registry")?;
    let (_, tag) = name.split_once(':').context("the image has no tag")?;
    Ok(Source { registry: registry.to_owned(), tag: tag.to_owned() })
}

fn use_it(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let server = Workload::server(NAMESPACE, "server", "v1", &["--http", "8080"]).ready_on(8080);
    let mut objects = vec![
        manifest::namespace(NAMESPACE, true),
        manifest::service(NAMESPACE, "server", "server", &[Port::named("http", 80, 8080)]),
    ];
    objects.extend(server.objects(image));
    objects.extend(Workload::client(NAMESPACE, "client").objects(image));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/server", "deploy/client"])?;
    let client = Client::pod(cluster, NAMESPACE, "deploy/client");
    let outcome = client.until("a request over the mesh", "http://server/", &[], Outcome::ok)?;
    let caller = outcome.caller_certificate().unwrap_or_default();
    ensure!(caller.contains("/sa/client"), "the caller was {caller:?}");
    Ok(())
}

/// It changes nothing, and says in the job's log which pods are in the way.
fn uninstall_is_refused(cluster: &Cluster) -> Result<()> {
    if helm_uninstall(cluster).is_ok() {
        bail!("the mesh was uninstalled under its proxies");
    }
    let logs = cluster.kubectl(&["logs", "--namespace", SYSTEM, "job/meshwright-uninstall"])?;
    let wanted = format!("{NAMESPACE}/server-");
    ensure!(logs.contains(&wanted), "the job does not say which pods are in the way: {logs}");
    let installation = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
    ensure!(installation["metadata"]["deletionTimestamp"].is_null(), "it is on its way out");
    let client = Client::pod(cluster, NAMESPACE, "deploy/client");
    client.call("http://server/", &[])?.answered().map(drop)
}

/// Takes every namespace away that is in the mesh, whichever test made it.
fn leave_the_mesh(cluster: &Cluster) -> Result<()> {
    for label in ["meshwright.dev/injection", "meshwright.dev/revision"] {
        let arguments = ["delete", "namespace", "--selector", label, "--ignore-not-found"];
        cluster.kubectl(&[&arguments[..], &["--timeout=120s"]].concat())?;
    }
    wait_for("no namespace on its way out", PATIENCE, || {
        let namespaces = cluster.kubectl_json(&["get", "namespaces"])?;
        let mut phases = testbed::items(&namespaces).map(|one| &one["status"]["phase"]);
        Ok(phases.all(|phase| phase == "Active").then_some(()))
    })
}

fn no_webhook(cluster: &Cluster) -> Result<()> {
    let kinds = "mutatingwebhookconfigurations";
    let found = cluster.kubectl(&["get", kinds, "-o", "name"])?;
    ensure!(!found.contains("meshwright"), "webhooks are left: {found}");
    Ok(())
}

fn uninstall(cluster: &Cluster) -> Result<()> {
    helm_uninstall(cluster).map(drop).context("helm uninstall")
}

fn helm_uninstall(cluster: &Cluster) -> Result<String> {
    let arguments = ["uninstall", "meshwright", "--namespace", SYSTEM, "--wait"];
    cluster.helm(&[&arguments[..], &["--timeout", "5m"]].concat())
}

/// Waits until nothing of the mesh is left and, where a listing is expected, until it is this one.
fn settled(cluster: &Cluster, expected: &BTreeSet<String>) -> Result<BTreeSet<String>> {
    wait_for("everything gone", PATIENCE, || {
        let listing = listing(cluster)?;
        let ours: Vec<_> = listing.iter().filter(|object| is_ours(object)).collect();
        ensure!(ours.is_empty(), "left: {ours:?}");
        if !expected.is_empty() {
            let more: Vec<_> = listing.difference(expected).collect();
            let less: Vec<_> = expected.difference(&listing).collect();
            ensure!(more.is_empty() && less.is_empty(), "left: {more:?}; missing: {less:?}");
        }
        Ok(Some(listing))
    })
}

/// Every object of the API, as `KIND NAMESPACE/NAME`, but what goes by itself after a while: events and
/// requests for certificates of nodes.
fn listing(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let resources = cluster.kubectl(&["api-resources", "--verbs=list", "--output=name"])?;
    let resources: Vec<_> = resources.lines().filter(|name| !PASSING.contains(name)).collect();
    let all = resources.join(",");
    let each = r#"-o=jsonpath={range .items[*]}{.kind}{" "}{.metadata.namespace}{"/"}{.metadata.name}{"\n"}{end}"#;
    let text = cluster.kubectl(&["get", &all, "--all-namespaces", "--ignore-not-found", each])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What belongs to the mesh. Its namespace was made by who installed it, and what Kubernetes puts in
/// every namespace is in there.
fn is_ours(object: &str) -> bool {
    // The test cluster's own parts.
    if object.contains("/meshwright-e2e-") {
        return false;
    }
    let usual = ["/kube-root-ca.crt", "/default"];
    let in_system = object.contains(&format!(" {SYSTEM}/"));
    let named = object.contains("meshwright") && !in_system;
    let namespace = object.ends_with(&format!(" /{SYSTEM}"));
    (in_system && !usual.iter().any(|name| object.ends_with(name)))
        || (named && !namespace && !is_kept_definition(object))
}

/// A definition that stays, or the version that the API server registers for it by itself.
fn is_kept_definition(object: &str) -> bool {
    let kinds = ["CustomResourceDefinition ", "APIService "];
    kinds.iter().any(|kind| object.starts_with(kind))
        && KEPT.iter().any(|group| object.ends_with(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_belongs_to_the_mesh() {
        for (object, ours) in [
            ("Namespace /meshwright-system", false),
            ("ClusterRole /meshwright-e2e-dns", false),
            ("ConfigMap meshwright-system/kube-root-ca.crt", false),
            ("ServiceAccount meshwright-system/default", false),
            ("Secret meshwright-system/sh.helm.release.v1.meshwright.v1", true),
            ("ConfigMap shop/meshwright-ca-root-cert", true),
            ("ClusterRole /meshwright-operator", true),
            ("CustomResourceDefinition /meshinstallations.meshwright.dev", false),
            ("APIService /v1alpha1.meshwright.dev", false),
            ("CustomResourceDefinition /gateways.gateway.networking.k8s.io", false),
            ("Pod kube-system/coredns", false),
        ] {
            assert_eq!(is_ours(object), ours, "{object}");
        }
        assert!(is_kept_definition("CustomResourceDefinition /gateways.networking.istio.io"));
        assert!(!is_kept_definition(
            "CustomResourceDefinition /gateways.gateway.networking.k8s.io"
        ));
    }
}
