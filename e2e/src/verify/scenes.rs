//! The cluster layer: every scenario in a Kubernetes of its own, one failure not ending the others.

use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use super::totals::Totals;
use crate::{
    args::VerifyArgs,
    cache::Cache,
    cluster::{self, Cluster},
    demo, deploy,
    scenarios::Scenario,
    steps::Steps,
};

const NAME: &str = "verify";

pub fn run(
    args: &VerifyArgs,
    cache: &Cache,
    scenarios: Vec<Scenario>,
    steps: &mut Steps,
    totals: &mut Totals,
) -> Result<()> {
    let _lock = cluster::lock(NAME)?;
    let scenarios = chosen(args, scenarios)?;
    let tools = demo::prepare(cache, steps)?;
    let booted = cluster::ensure(cache, NAME, steps)?;
    let installed = demo::install(cache, &tools, &booted, steps);
    match &installed {
        Ok(cluster) => {
            for scenario in &scenarios {
                play(scenario, cluster, steps, totals);
            }
        }
        Err(_) => steps.say(&state(&booted.cluster)),
    }
    if args.keep {
        steps.say(&format!(
            "        the cluster stays up: {} get pods -A; cargo demo -- down --name {NAME}",
            booted.node.kubectl().display()
        ));
    } else {
        steps.run("the cluster is taken away", || cluster::take_away(cache, NAME))?;
    }
    installed.map(drop)
}

fn chosen(args: &VerifyArgs, mut scenarios: Vec<Scenario>) -> Result<Vec<Scenario>> {
    if let Some(only) = &args.only {
        scenarios.retain(|scenario| only.split(',').any(|text| scenario.name.contains(text)));
        ensure!(!scenarios.is_empty(), "no scenario has {only} in its name");
    }
    Ok(scenarios)
}

fn play(scenario: &Scenario, cluster: &Cluster, steps: &mut Steps, totals: &mut Totals) {
    let result = steps.run(scenario.name, || {
        catch_unwind(AssertUnwindSafe(|| (scenario.run)(cluster)))
            .unwrap_or_else(|_| Err(anyhow!("it panicked; the reason is above")))
    });
    match result {
        Ok(()) => totals.passed(),
        Err(error) => {
            steps.say(&format!("{error:#}\n{}", state(cluster)));
            totals.failed(scenario.name);
        }
    }
}

/// What a person would look at first: pods, those that are not well in detail, what the mesh says.
fn state(cluster: &Cluster) -> String {
    let mut text = String::new();
    let mut add = |title: &str, arguments: &[&str]| {
        let output = cluster.kubectl(arguments).unwrap_or_else(|error| format!("{error:#}"));
        writeln!(text, "--- {title}\n{}", output.trim_end()).ok();
    };
    add("pods", &["get", "pods", "-A", "-o", "wide"]);
    let warnings =
        ["get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"];
    add("warnings", &warnings);
    for (namespace, pod) in unwell(cluster) {
        add(&format!("{namespace}/{pod}"), &["describe", "pod", "-n", &namespace, &pod]);
        let logs = ["logs", "-n", &namespace, &pod, "--all-containers", "--prefix", "--tail=40"];
        add(&format!("{namespace}/{pod}: logs"), &logs);
    }
    for name in ["operator", "control-plane"] {
        let target = format!("deployment/meshwright-{name}");
        add(name, &["logs", "-n", deploy::SYSTEM, &target, "--tail=40"]);
    }
    add("installation", &["get", "meshinstallation", "default", "-o", "yaml"]);
    text
}

/// Pods that should be ready and are not.
fn unwell(cluster: &Cluster) -> Vec<(String, String)> {
    const MOST: usize = 5;
    let Ok(pods) = cluster.kubectl_json(&["get", "pods", "-A"]) else { return Vec::new() };
    pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|pod| pod["status"]["phase"] != "Succeeded" && !is_ready(pod))
        .filter_map(|pod| {
            let metadata = &pod["metadata"];
            Some((
                metadata["namespace"].as_str()?.to_owned(),
                metadata["name"].as_str()?.to_owned(),
            ))
        })
        .take(MOST)
        .collect()
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}
