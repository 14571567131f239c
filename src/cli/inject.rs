//! `meshwright inject`: what the webhook would do to workloads, from files.

pub mod documents;
mod source;
pub mod workload;

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use self::{
    documents::Document,
    source::Source,
    workload::{Finding, Mesh, Verdict},
};
use super::printer::Printer;
use crate::{
    api::meshwright::labels::DEFAULT_REVISION, operator::platform::Images,
    webhook::inject::Namespace,
};

/// Command-line arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Files and folders of YAML or JSON; - for standard input
    #[arg(short, long, value_name = "FILE", num_args = 1.., required = true)]
    pub filename: Vec<PathBuf>,
    /// Look into folders of folders too
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Where the result goes; standard output without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Say what would happen to each workload, and why, instead
    #[arg(long)]
    pub explain: bool,
    /// Namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Labels of namespaces that are neither in the files nor in the cluster: KEY=VALUE,…
    #[arg(long, value_name = "LABELS", value_parser = label, value_delimiter = ',')]
    pub namespace_labels: Vec<(String, String)>,
    /// A MeshInstallation; without it, the cluster's
    #[arg(long, value_name = "FILE", conflicts_with = "revision")]
    pub installation: Option<PathBuf>,
    /// Revision, or tag, of the cluster's MeshInstallation
    #[arg(long, default_value = DEFAULT_REVISION)]
    pub revision: String,
    /// Kubeconfig of the cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the operator and the control planes
    #[arg(long, value_name = "NAMESPACE", default_value = "meshwright-system")]
    pub system_namespace: String,
    #[command(flatten)]
    pub images: Images,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Injects, or explains.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let printer = Printer { file: args.output.clone() };
    let mut documents = Vec::new();
    for path in &args.filename {
        documents.extend(read(path, args.recursive)?);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (source, namespaces) = runtime.block_on(async {
        let source = Source::open(args, &printer).await?;
        let namespaces = namespaces(&documents, args, &source, &printer).await?;
        anyhow::Ok((source, namespaces))
    })?;
    let mesh = Mesh {
        config: &source.config,
        namespaces: &namespaces,
        default_namespace: &args.namespace,
    };
    let findings = inject(&mut documents, &mesh);
    if args.explain {
        return printer.print(&findings.iter().map(explanation).collect::<String>());
    }
    report(&findings, &printer)?;
    printer.print(&documents::write(&documents).context("cannot write YAML")?)
}

/// Injects all workloads of the documents.
pub fn inject(documents: &mut [Document], mesh: &Mesh<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for document in documents {
        let mut value = document.value.clone();
        findings.extend(workload::inject_all(&mut value, mesh));
        document.replace(value);
    }
    findings
}

/// `KIND NAMESPACE/NAME: VERDICT — REASON`, and what is odd.
pub fn explanation(finding: &Finding) -> String {
    let Finding { workload, verdict, because, warnings } = finding;
    let mut line = format!("{workload}: {} — {because}", verdict.as_str());
    for warning in warnings {
        line.push_str(" (warning: ");
        line.push_str(warning);
        line.push(')');
    }
    line.push('\n');
    line
}

/// What the webhook would refuse is an error; what it would warn of is a warning.
fn report(findings: &[Finding], printer: &Printer) -> anyhow::Result<()> {
    for finding in findings {
        for warning in &finding.warnings {
            printer.warn(&format!("{}: {warning}", finding.workload));
        }
    }
    let denied = findings.iter().filter(|finding| finding.verdict == Verdict::Denied);
    let denied: Vec<_> = denied.map(|f| format!("{}: {}", f.workload, f.because)).collect();
    if denied.is_empty() {
        return Ok(());
    }
    bail!("nothing was written, for the webhook would refuse pods: {}", denied.join("; "))
}

/// The namespaces that matter: from the documents, else from the cluster, else as given.
async fn namespaces(
    documents: &[Document],
    args: &Args,
    source: &Source,
    printer: &Printer,
) -> anyhow::Result<BTreeMap<String, Namespace>> {
    let defined = documents.iter().flat_map(|d| workload::defined_namespaces(&d.value));
    let mut known: BTreeMap<_, _> = defined.map(|n| (n.name.clone(), n)).collect();
    let used = documents.iter().flat_map(|d| workload::namespaces(&d.value, &args.namespace));
    for name in used {
        if known.contains_key(&name) {
            continue;
        }
        let of_cluster = source.namespace(&name).await?;
        if of_cluster.is_none() && args.namespace_labels.is_empty() {
            printer.warn(&format!(
                "the labels of namespace {name} are not known: add its Namespace to the files, or say --namespace-labels meshwright.dev/injection=enabled"
            ));
        }
        let given = || {
            let labels = args.namespace_labels.iter().cloned().collect();
            Namespace::new(&name, labels, &BTreeMap::new())
        };
        let namespace = of_cluster.unwrap_or_else(given);
        known.insert(name, namespace);
    }
    Ok(known)
}

fn read(path: &Path, recursive: bool) -> anyhow::Result<Vec<Document>> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("cannot read standard input")?;
        return Ok(documents::read("standard input", &text)?);
    }
    let mut documents = Vec::new();
    for file in files(path, recursive)? {
        let name = file.display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {name}"))?;
        documents.extend(documents::read(&name, &text)?);
    }
    Ok(documents)
}

/// The file itself, or the YAML and JSON files of a folder in the order of their names.
fn files(path: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = || format!("cannot read folder {}", path.display());
    let entries = fs::read_dir(path).with_context(folder)?;
    let mut entries: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(folder)?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let extension = entry.extension().and_then(|extension| extension.to_str());
        if entry.is_dir() && recursive {
            found.extend(files(&entry, recursive)?);
        } else if entry.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(entry);
        }
    }
    Ok(found)
}
