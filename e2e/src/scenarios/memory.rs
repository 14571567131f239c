//! What the mesh's own processes take, read from the node's process table.

use anyhow::{Context, Result, ensure};

use super::{collector::Collector, testbed};
use crate::{cluster::Cluster, steps};

const AGENT_KIB: u64 = 10 * 1024;
const CONTROL_PLANE_KIB: u64 = 40 * 1024;

/// Resident memory of every agent and of the control plane, with the testbed running.
pub fn within_budget(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let output = cluster
        .command("ps")
        .args(["-e", "-o", "rss=,args="])
        .output()
        .context("run ps, which this test needs")?;
    let table = String::from_utf8_lossy(&output.stdout);
    let mut collector = Collector::default();
    for (role, limit) in [("agent", AGENT_KIB), ("control-plane", CONTROL_PLANE_KIB)] {
        collector.case(role, || {
            let sizes = resident(&table, role);
            let largest = sizes.iter().copied().max().context("no such process")?;
            let median = sizes[sizes.len() / 2];
            steps::print(&format!(
                "        {role}: {} processes, median {}, largest {} resident",
                sizes.len(),
                mebibytes(median),
                mebibytes(largest)
            ));
            let text = mebibytes(limit);
            ensure!(median <= limit, "the median is more than {text}");
            // One of them may just have done something that the others have not.
            ensure!(largest <= limit + limit / 10, "the largest is a tenth more than {text}");
            Ok(())
        });
    }
    collector.verdict()
}

/// Sizes in KiB of the processes that run a role of the binary, smallest first.
fn resident(table: &str, role: &str) -> Vec<u64> {
    let mut sizes: Vec<u64> = table
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let size = words.next()?.parse().ok()?;
            let program = words.next()?;
            let plays = words.next() == Some(role);
            (plays && program.rsplit('/').next() == Some("meshwright")).then_some(size)
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

#[expect(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn mebibytes(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_roles_in_the_process_table() {
        let table = " 9216 /usr/local/bin/meshwright agent\n\
                     8000 meshwright agent --wait\n\
                     30000 /usr/local/bin/meshwright control-plane --revision default\n\
                     1000 grep meshwright agent\n\
                     50000 /usr/local/bin/envoy -c x\n";
        assert_eq!(resident(table, "agent"), [8000, 9216]);
        assert_eq!(resident(table, "control-plane"), [30000]);
        assert_eq!(mebibytes(9216), "9.0 MiB");
    }
}
