//! What the chart says of itself in a cluster.

use anyhow::{Result, ensure};

use super::testbed::SYSTEM;
use crate::cluster::Cluster;

/// `helm test` passes, and leaves nothing behind.
pub fn helm_test_passes(cluster: &Cluster) -> Result<()> {
    let output = cluster.helm(&["test", "meshwright", "--namespace", SYSTEM, "--timeout", "2m"])?;
    ensure!(output.contains("Succeeded"), "helm test says no word of success: {output}");
    let left = cluster.kubectl(&["get", "pods", "--namespace", SYSTEM, "--output=name"])?;
    ensure!(!left.contains("meshwright-test"), "the test's pod is left: {left}");
    Ok(())
}
