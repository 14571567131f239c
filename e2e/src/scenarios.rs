//! What the demo shows and the cluster tests prove, in terms of a running cluster alone.

use anyhow::Result;

use crate::{cluster::Cluster, steps::Steps};

/// One test in a cluster that has the mesh installed.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Cluster) -> Result<()>,
}

/// Shows the mesh at work.
pub fn demo(_cluster: &Cluster, _steps: &mut Steps) -> Result<()> {
    Ok(())
}

/// Every test, in the order to run them in.
pub fn all() -> Vec<Scenario> {
    Vec::new()
}

/// What is measured and not judged.
pub fn measurements() -> Vec<Scenario> {
    Vec::new()
}
