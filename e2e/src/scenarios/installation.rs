//! What a person sees of the mesh with kubectl.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::testbed;
use crate::cluster::{Cluster, wait_for};

/// `kubectl get` shows Ready, version and proxies; `kubectl describe` shows conditions and events.
pub fn shows_its_state(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    wait_for("MeshInstallation ready, with its proxies counted", Duration::from_secs(30), || {
        let object = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
        let conditions = object["status"]["conditions"].as_array().context("no conditions")?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        let ready = ready.context("no condition Ready")?;
        ensure!(ready["status"] == "True", "not ready: {}", ready["message"]);
        let proxies = object["status"]["proxies"]["ready"].as_u64().unwrap_or_default();
        ensure!(proxies >= 2, "{proxies} proxies ready, though the testbed runs");
        Ok(Some(()))
    })?;
    let table = cluster.kubectl(&["get", "meshinstallation", "default"])?;
    let columns = columns(&table)?;
    for (column, right) in [
        ("READY", (|cell| cell == "True") as fn(&str) -> bool),
        ("VERSION", |cell| !cell.is_empty()),
        ("PROXIES", |cell| cell.contains('/') && !cell.starts_with("0/")),
    ] {
        let cell = columns.iter().find(|(name, _)| name == column);
        let (_, cell) = cell.with_context(|| format!("no column {column} in\n{table}"))?;
        ensure!(right(cell), "column {column} shows `{cell}`:\n{table}");
    }
    let described = cluster.kubectl(&["describe", "meshinstallation", "default"])?;
    let events = described.split("\nEvents:").nth(1).context("kubectl describe shows no events")?;
    ensure!(!events.trim().starts_with("<none>"), "kubectl describe shows no events");
    ensure!(described.contains("Conditions:"), "kubectl describe shows no conditions");
    Ok(())
}

/// The cells of a table's first row, with their columns.
fn columns(table: &str) -> Result<Vec<(String, String)>> {
    let mut lines = table.lines();
    let header = lines.next().context("an empty table")?;
    let row = lines.next().context("a table without rows")?;
    let mut starts: Vec<usize> = Vec::new();
    let mut gap = true;
    for (at, c) in header.char_indices() {
        if c != ' ' && gap {
            starts.push(at);
        }
        gap = c == ' ';
    }
    Ok(starts
        .iter()
        .enumerate()
        .map(|(index, &start)| {
            let end = starts.get(index + 1).copied().unwrap_or(usize::MAX);
            (cut(header, start, end), cut(row, start, end))
        })
        .collect())
}

fn cut(line: &str, start: usize, end: usize) -> String {
    line.get(start.min(line.len())..end.min(line.len())).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_table_with_an_empty_cell() {
        let table =
            "NAME      READY   VERSION   PROXIES   AGE\ndefault   True              4/5       2m\n";
        let columns = columns(table).unwrap();
        assert_eq!(columns[1], ("READY".to_owned(), "True".to_owned()));
        assert_eq!(columns[2], ("VERSION".to_owned(), String::new()));
        assert_eq!(columns[3], ("PROXIES".to_owned(), "4/5".to_owned()));
        assert_eq!(columns[4], ("AGE".to_owned(), "2m".to_owned()));
    }
}
