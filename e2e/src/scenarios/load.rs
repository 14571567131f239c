//! Load that goes on while something else happens: a client that runs as a Deployment.

use anyhow::Result;

use super::{
    client::{Client, Summary},
    manifest::Workload,
    testbed,
};
use crate::cluster::Cluster;

/// Ends a load and gives its final results.
pub fn stop(cluster: &Cluster, namespace: &str, name: &str) -> Result<Summary> {
    let address = testbed::pod_ip(cluster, namespace, name)?;
    let url = format!("http://{address}:8090/stop");
    let outcome = Client::machine(cluster).call(&url, &["--method", "POST"])?.answered()?;
    Summary::from_value(outcome.answer().clone())
}

/// What a load has done so far.
pub fn so_far(cluster: &Cluster, namespace: &str, name: &str) -> Result<Summary> {
    let address = testbed::pod_ip(cluster, namespace, name)?;
    let url = format!("http://{address}:8090/results");
    let outcome = Client::machine(cluster).call(&url, &[])?.answered()?;
    Summary::from_value(outcome.answer().clone())
}

/// A Deployment that makes requests at a constant rate until it is stopped.
pub fn deployment<'a>(
    namespace: &'a str,
    name: &'a str,
    url: &str,
    flags: &[&str],
) -> Workload<'a> {
    let args = [&["load", "--url", url, "--listen", "8090"], flags].concat();
    Workload {
        args: args.into_iter().map(str::to_owned).collect(),
        ..Workload::client(namespace, name).ready_on(8090)
    }
}
