//! What the documentation shows is what the API server takes.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::collector::Collector;
use crate::{cache::project, cluster::Cluster};

const EXAMPLES: &str = "charts/meshwright/examples";

/// Every example, and every object in the documents, through the API server's validation and our own.
pub fn are_accepted(cluster: &Cluster) -> Result<()> {
    let root = project();
    let mut collector = Collector::default();
    let mut count = 0;
    for file in files(&root.join(EXAMPLES), "yaml")? {
        count += 1;
        let text = fs::read_to_string(root.join(EXAMPLES).join(&file))?;
        collector.case(&file, || accepted(cluster, &text));
    }
    ensure!(count >= 5, "only {count} examples in {EXAMPLES}");
    let documents = files(&root.join("docs"), "md")?.into_iter().map(|name| format!("docs/{name}"));
    for file in documents.chain(["README.md".to_owned()]) {
        let text = fs::read_to_string(root.join(&file))?;
        for (index, block) in blocks(&text).into_iter().enumerate() {
            collector.case(&format!("{file}, block {}", index + 1), || accepted(cluster, &block));
        }
    }
    collector.verdict()
}

/// A namespace of the same file does not exist for a dry run: what goes into it is not judged by it.
fn accepted(cluster: &Cluster, yaml: &str) -> Result<()> {
    let dry_run = ["apply", "--dry-run=server", "--validate=strict", "--filename", "-"];
    // An example may be about the installation that the cluster has already, made by another manager.
    let arguments = [&dry_run[..], &["--server-side", "--force-conflicts"]].concat();
    cluster.kubectl_with_input(&arguments, yaml).map(drop)
}

fn files(folder: &Path, extension: &str) -> Result<BTreeSet<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| Path::new(name).extension().is_some_and(|e| e == extension)).collect())
}

/// The YAML blocks of a document that are whole Kubernetes objects.
fn blocks(document: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in document.lines() {
        match &mut open {
            Some(_) if line.trim() == "```" => blocks.extend(open.take()),
            Some(block) => *block = format!("{block}{line}\n"),
            None if line.trim() == "```yaml" => open = Some(String::new()),
            None => {}
        }
    }
    let whole = |block: &String| {
        ["apiVersion:", "kind:"]
            .iter()
            .all(|field| block.lines().any(|line| line.starts_with(field)))
    };
    blocks.into_iter().filter(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_objects_and_leaves_fragments() {
        let document = "text\n```yaml\napiVersion: v1\nkind: Namespace\n```\n```yaml\nspec: {}\n```\n```sh\nkind: x\n```\n";
        assert_eq!(blocks(document), ["apiVersion: v1\nkind: Namespace\n"]);
    }
}
