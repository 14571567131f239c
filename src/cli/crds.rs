//! `meshwright crds`: prints the CustomResourceDefinitions.

use std::io::Write;

use anyhow::Context;

use crate::api::crd::Source;

/// Command-line arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print only those of one source
    #[arg(long, value_enum)]
    pub only: Option<Source>,
}

/// Prints them as YAML documents, ready for `kubectl apply`.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    for source in args.only.map_or_else(|| Source::ALL.to_vec(), |only| vec![only]) {
        stdout.write_all(yaml(source)?.as_bytes()).context("cannot write to standard output")?;
    }
    Ok(())
}

/// The definitions of one source as YAML documents.
pub fn yaml(source: Source) -> anyhow::Result<String> {
    let mut documents = String::new();
    for crd in source.definitions() {
        let document = serde_saphyr::to_string(&crd)
            .with_context(|| format!("cannot write {} as YAML", crd.spec.names.kind))?;
        documents.push_str("---\n");
        documents.push_str(document.trim_end());
        documents.push('\n');
    }
    Ok(documents)
}
