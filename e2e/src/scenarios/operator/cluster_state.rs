//! What an installation has in the cluster, and how much the operator writes.

use std::fmt;

use anyhow::{Context, Result};
use serde_json::Value;

use super::super::{
    metrics,
    testbed::{self, SYSTEM},
};
use crate::{cluster::Cluster, process};

/// All that the operator makes, as kubectl calls it.
const KINDS: &str = "serviceaccounts,services,deployments,horizontalpodautoscalers,\
poddisruptionbudgets,roles,rolebindings,clusterroles,clusterrolebindings,\
mutatingwebhookconfigurations";

/// An object that the operator made.
pub(super) struct Child {
    pub kind: String,
    pub namespace: Option<String>,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        write!(f, "{} {namespace}/{}", self.kind, self.name)
    }
}

impl Child {
    fn of(object: &Value) -> Option<Self> {
        let (metadata, text) = (&object["metadata"], |v: &Value| v.as_str().map(str::to_owned));
        Some(Self {
            kind: text(&object["kind"])?,
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"])?,
            uid: text(&metadata["uid"])?,
            resource_version: text(&metadata["resourceVersion"])?,
        })
    }

    pub fn in_namespace(&self) -> Vec<&str> {
        self.namespace.iter().flat_map(|namespace| ["--namespace", namespace]).collect()
    }

    pub fn get(&self, cluster: &Cluster) -> Result<Value> {
        let mut get = vec!["get", self.kind.as_str(), self.name.as_str()];
        get.extend(self.in_namespace());
        cluster.kubectl_json(&get)
    }
}

/// All that the operator made for an installation.
pub(super) fn children(cluster: &Cluster, installation: &str) -> Result<Vec<Child>> {
    let label = format!("meshwright.dev/installation={installation}");
    let found = cluster.kubectl_json(&["get", KINDS, "--all-namespaces", "--selector", &label])?;
    Ok(testbed::items(&found).filter_map(Child::of).collect())
}

/// How often the operators have written something that is no Lease, no Event and no certificate.
pub(super) fn operator_writes(cluster: &Cluster) -> Result<u64> {
    const ASIDE: [&str; 3] = ["leases", "events", "secrets"];
    let pods = cluster.kubectl_json(&["get", "pods", "--namespace", SYSTEM])?;
    let mut writes = 0.0;
    for pod in testbed::items(&pods) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if !name.starts_with("meshwright-operator-")
            || !pod["metadata"]["deletionTimestamp"].is_null()
        {
            continue;
        }
        let address = pod["status"]["podIP"].as_str().context("an operator without an address")?;
        let url = format!("http://{address}:15014/metrics");
        let mut curl = cluster.command("curl");
        let text = process::output(curl.args(["--silent", "--fail", "--max-time", "10", &url]))?;
        writes += metrics::parse(&text)
            .iter()
            .filter(|sample| sample.name == "meshwright_operator_writes_total")
            .filter(|sample| !ASIDE.contains(&sample.label("resource")))
            .map(|sample| sample.value)
            .sum::<f64>();
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    Ok(writes as u64)
}
