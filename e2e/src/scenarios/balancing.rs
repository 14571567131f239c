//! Which pod gets a request: load balancing, and shares by version.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    client::{Client, Outcome, PROPAGATION, Summary},
    manifest::{self, Port, Workload},
    testbed::{self, MESHED},
};
use crate::cluster::{Cluster, wait_for};

/// The service in two versions, of which the second is slow.
pub const SPREAD: &str = "spread";
const URL: &str = "http://spread/item";

/// Makes sure that the two versions run.
pub fn ensure_versions(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let image = cluster.testapp_image();
    let version = |name: &'static str, version, slow| {
        let flags = ["--http", "8080", "--slow", slow];
        Workload::server(MESHED, name, version, &flags).of_app(SPREAD).ready_on(8080)
    };
    let mut objects = Vec::new();
    objects.extend(version("spread-v1", "v1", "0s").objects(image));
    objects.extend(version("spread-v2", "v2", "20ms").objects(image));
    objects.push(manifest::service(MESHED, SPREAD, SPREAD, &[Port::named("http", 80, 8080)]));
    objects.push(manifest::destination_rule(MESHED, SPREAD, &["v1", "v2"]));
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, MESHED, &["deploy/spread-v1", "deploy/spread-v2"])?;
    testbed::meshed_client(cluster).until("the versions", URL, &[], Outcome::ok).map(drop)
}

/// Round robin gives each the same, however slow it is; least request favours the fast one.
pub fn round_robin_and_least_request(cluster: &Cluster) -> Result<()> {
    ensure_versions(cluster)?;
    testbed::delete(cluster, MESHED, "virtualservice", SPREAD)?;
    let client = testbed::meshed_client(cluster);
    balance(cluster, client, "ROUND_ROBIN", |slow| (45.0..=55.0).contains(&slow))?;
    // Two are drawn and the idler one taken. Both draws are the slow pod in a quarter of all cases.
    balance(cluster, client, "LEAST_REQUEST", |slow| (2.0..=42.0).contains(&slow))
}

/// Sets the policy and waits until the slow version's share is what it should be.
fn balance(
    cluster: &Cluster,
    client: Client<'_>,
    policy: &str,
    right: impl Fn(f64) -> bool,
) -> Result<()> {
    let mut rule = manifest::destination_rule(MESHED, SPREAD, &["v1", "v2"]);
    rule["spec"]["trafficPolicy"] = json!({"loadBalancer": {"simple": policy}});
    manifest::apply(cluster, &[rule])?;
    wait_for(&format!("{policy} in force"), PROPAGATION, || {
        let summary = client.run(URL, &["--count", "400", "--concurrency", "8"])?;
        let summary = summary.without_failures()?;
        let slow = summary.percent("spread/v2");
        ensure!(right(slow), "the slow pod got {slow:.1} %");
        Ok(Some(()))
    })
}

/// 90 % to one version, 10 % to the other, over 1,000 requests, within 3 points.
pub fn ninety_to_ten(cluster: &Cluster) -> Result<()> {
    ensure_versions(cluster)?;
    manifest::apply(cluster, &[weighted(MESHED, SPREAD, 90, 10)])?;
    let client = testbed::meshed_client(cluster);
    wait_for("the split in force", PROPAGATION, || {
        let summary = client.run(URL, &["--count", "100", "--concurrency", "8"])?;
        Ok((summary.percent("spread/v1") > 70.0).then_some(()))
    })?;
    let summary = client.run(URL, &["--count", "1000", "--concurrency", "8"])?;
    let summary = within_three_points(summary, "spread/v1", 90.0)?;
    ensure!(summary.requests() == 1000, "{} requests", summary.requests());
    testbed::delete(cluster, MESHED, "virtualservice", SPREAD)
}

/// A VirtualService that shares out a host's requests between v1 and v2.
pub fn weighted(namespace: &str, host: &str, v1: u32, v2: u32) -> serde_json::Value {
    let http = json!([{"route": [
        {"destination": {"host": host, "subset": "v1"}, "weight": v1},
        {"destination": {"host": host, "subset": "v2"}, "weight": v2},
    ]}]);
    manifest::virtual_service(namespace, host, &[host], &http)
}

/// Refuses a share that is more than three points off.
pub fn within_three_points(summary: Summary, version: &str, percent: f64) -> Result<Summary> {
    let summary = summary.without_failures()?;
    let got = summary.percent(version);
    ensure!((got - percent).abs() <= 3.0, "{version} got {got:.1} %, not {percent} %");
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_points_are_the_limit() {
        let summary = |v1: u32| {
            Summary::from_value(json!({"requests": 1000, "failed": 0, "versions": {"a/v1": v1}}))
        };
        assert!(within_three_points(summary(930).unwrap(), "a/v1", 90.0).is_ok());
        let error = within_three_points(summary(869).unwrap(), "a/v1", 90.0).unwrap_err();
        assert_eq!(error.to_string(), "a/v1 got 86.9 %, not 90 %");
    }
}
