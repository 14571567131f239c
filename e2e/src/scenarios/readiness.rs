//! How much later a pod is ready because of its sidecar. Measured, not judged.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{manifest, testbed};
use crate::{cluster::Cluster, steps};

const NAMESPACE: &str = "readiness-tests";
const ROUNDS: usize = 10;

/// The kinds of pod that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One container and nothing else.
    Bare,
    /// An init container that exits at once and a native sidecar that is ready at once: what the
    /// kubelet takes by itself.
    Floor,
    /// Injected.
    Meshed,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Bare, Self::Floor, Self::Meshed];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Floor => "floor",
            Self::Meshed => "meshed",
        }
    }

    fn pod(self, image: &str, round: usize) -> Value {
        let container =
            |name: &str, argument: &str| manifest::container(name, image, &[argument.to_owned()]);
        let mut sidecar = container("sidecar", "pause");
        sidecar["restartPolicy"] = json!("Always");
        let init = match self {
            Self::Floor => vec![container("init", "--version"), sidecar],
            Self::Bare | Self::Meshed => Vec::new(),
        };
        let inject = if self == Self::Meshed { "true" } else { "false" };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": NAMESPACE,
                "name": format!("{}-{round}", self.name()),
                "labels": {"meshwright.dev/inject": inject},
            },
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "initContainers": init,
                "containers": [container("app", "pause")],
            },
        })
    }
}

/// Starts pods of each kind in turn, ten times, and prints the medians of the time from the request
/// for the pod to its readiness.
pub fn measure_readiness(cluster: &Cluster) -> Result<()> {
    manifest::apply(cluster, &[manifest::namespace(NAMESPACE, true)])?;
    let mut times: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..Kind::ALL.len() {
            // Nobody always comes first.
            let index = (round + turn) % Kind::ALL.len();
            times[index].push(start(cluster, Kind::ALL[index], round)?);
        }
    }
    let [bare, floor, meshed] = times.map(|mut times| median(&mut times));
    steps::print(&format!(
        "        ready after (median of {ROUNDS}): bare {bare:.2} s, floor {floor:.2} s, \
         meshed {meshed:.2} s: {:+.2} s over the floor, {:+.2} s over the bare pod",
        meshed - floor,
        meshed - bare
    ));
    testbed::delete_namespace(cluster, NAMESPACE)
}

/// Time from the request for a pod until it is ready.
fn start(cluster: &Cluster, kind: Kind, round: usize) -> Result<Duration> {
    let pod = kind.pod(cluster.testapp_image(), round);
    let name = format!("pod/{}-{round}", kind.name());
    let began = Instant::now();
    cluster.kubectl_with_input(&["create", "--filename", "-"], &pod.to_string())?;
    let wait = ["wait", "--for=condition=Ready", &name, "--namespace", NAMESPACE];
    cluster.kubectl(&[&wait, ["--timeout=60s"].as_slice()].concat())?;
    let took = began.elapsed();
    cluster.kubectl(&["delete", &name, "--namespace", NAMESPACE])?;
    Ok(took)
}

/// The median in seconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    let middle = times.len() / 2;
    let upper = times.get(middle).copied().unwrap_or_default().as_secs_f64();
    if times.len() % 2 == 1 {
        return upper;
    }
    let lower = times.get(middle.saturating_sub(1)).copied().unwrap_or_default().as_secs_f64();
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let mut times = [4, 1, 3, 2].map(Duration::from_secs);
        assert!((median(&mut times) - 2.5).abs() < 1e-9);
        assert!((median(&mut times[..3]) - 2.0).abs() < 1e-9);
        assert!(median(&mut []).abs() < 1e-9);
    }

    #[test]
    fn only_the_meshed_pod_asks_for_injection() {
        for kind in Kind::ALL {
            let pod = kind.pod("testapp:1", 0);
            let wanted = if kind == Kind::Meshed { "true" } else { "false" };
            assert_eq!(pod["metadata"]["labels"]["meshwright.dev/inject"], wanted);
            let init = pod["spec"]["initContainers"].as_array().unwrap().len();
            assert_eq!(init, if kind == Kind::Floor { 2 } else { 0 });
        }
    }
}
