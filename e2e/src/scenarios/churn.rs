//! Pods that come and go in a labelled namespace: not one is without a proxy.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{manifest, testbed, testbed::SYSTEM, workloads::has_proxy};
use crate::cluster::{Cluster, wait_for};

const NAMESPACE: &str = "churn-tests";
const ROUND: usize = 100;
const PODS: usize = 1_000;

/// A thousand pods are made while the operator, which serves the webhook, is restarted twice. They
/// ask for a node that does not exist: what is tested happens when they are made, and the machine has
/// no room for a thousand.
pub fn no_pod_without_a_proxy(cluster: &Cluster) -> Result<()> {
    manifest::apply(cluster, &[manifest::namespace(NAMESPACE, true), deployment(cluster)])?;
    let mut seen = BTreeSet::new();
    let mut round = 0;
    while seen.len() < PODS {
        if round == 2 || round == 6 {
            let operator = "deployment/meshwright-operator";
            cluster.kubectl(&["rollout", "restart", "--namespace", SYSTEM, operator])?;
        }
        look_at_new_pods(cluster, &mut seen)?;
        let delete = ["delete", "pods", "--all", "--namespace", NAMESPACE];
        cluster
            .kubectl(&[&delete[..], &["--grace-period=0", "--force", "--wait=false"]].concat())?;
        round += 1;
    }
    manifest::rolled_out(cluster, SYSTEM, &["deployment/meshwright-operator"])?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

/// Waits until there are as many as asked for that were not seen before, and looks at each of them.
fn look_at_new_pods(cluster: &Cluster, seen: &mut BTreeSet<String>) -> Result<()> {
    let new = wait_for("new pods", Duration::from_mins(2), || {
        let list = cluster.kubectl_json(&["get", "pods", "--namespace", NAMESPACE])?;
        let new: Vec<Value> =
            testbed::items(&list).filter(|pod| !seen.contains(&uid(pod))).cloned().collect();
        Ok((new.len() >= ROUND).then_some(new))
    })?;
    for pod in new {
        let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
        ensure!(has_proxy(&pod), "pod {name} has no proxy; {} had one before it", seen.len());
        seen.insert(uid(&pod));
    }
    Ok(())
}

fn uid(pod: &Value) -> String {
    pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn deployment(cluster: &Cluster) -> Value {
    let container = manifest::container("app", cluster.testapp_image(), &["pause".to_owned()]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": NAMESPACE, "name": "churn"},
        "spec": {
            "replicas": ROUND,
            "selector": {"matchLabels": {"app": "churn"}},
            "template": {
                "metadata": {"labels": {"app": "churn"}},
                "spec": {
                    "nodeSelector": {"no-such-node": "true"},
                    "containers": [container],
                },
            },
        },
    })
}
