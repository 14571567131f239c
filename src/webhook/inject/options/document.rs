//! `docs/annotations.md`, from the tables that the parser reads.

use std::fmt::{self, Write};

use super::{
    metadata, proxy_config,
    table::{self, PREFIX},
};

const HEAD: &str = "\
# Annotations of a pod

What a pod can say about its proxy. Made of the tables that the webhook reads; \
`MESHWRIGHT_UPDATE=1 cargo test --test annotations_fresh` writes it anew.

Annotations stand in the pod's template. Each has a name of ours, and most have Istio's name too, \
which means the same unless the MeshInstallation says `compatibility.istioLabels: false`. Where a \
pod has both, ours wins, with a warning if they differ. A value that is not of the accepted form \
denies the pod, with all that is wrong in one message. A name that looks like one of these and is \
none is a warning.

Lists have commas between their items; an empty text is an empty list.
";

/// The whole document.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    // Writing to a String cannot fail.
    let _ = write(&mut text);
    text
}

fn write(text: &mut String) -> fmt::Result {
    section(text, "Annotations", ["Annotation", "Istio's name", "Value", "Example", "Effect"])?;
    for known in table::all() {
        let istio: Vec<_> = known.istio.iter().map(|name| format!("`{name}`")).collect();
        let example = code(known.example);
        let name = format!("`{PREFIX}{}`", known.name);
        row(text, &[&name, &istio.join(", "), known.form, &example, known.effect])?;
    }
    section(text, "Fields of `proxy-config`", ["Field", "Value", "Effect"])?;
    for field in &proxy_config::FIELDS {
        row(text, &[&code(field.name), field.form, field.effect])?;
    }
    for (field, instead) in &proxy_config::WITHOUT_EFFECT {
        row(text, &[&code(field), "anything", &format!("None, with a warning: {instead}.")])?;
    }
    section(text, "Variables of `proxyMetadata`", ["Variable", "Value", "Effect"])?;
    for known in &metadata::KNOWN {
        row(text, &[&code(known.name), known.form, known.effect])?;
    }
    for (name, instead) in &metadata::WITHOUT_EFFECT {
        row(text, &[&code(name), "anything", &format!("None, with a warning: {instead}.")])?;
    }
    row(text, &["`ISTIO_META_*`", "a text", "Metadata of Envoy's node, without the prefix."])?;
    row(text, &["others", "a text", "A variable of the proxy."])?;
    section(text, "Read and written elsewhere", ["Name", "Istio's name", "Effect"])?;
    for known in &table::ELSEWHERE {
        let istio = if known.istio.is_empty() { String::new() } else { code(known.istio) };
        row(text, &[&code(known.name), &istio, known.effect])?;
    }
    Ok(())
}

fn section<const N: usize>(text: &mut String, title: &str, columns: [&str; N]) -> fmt::Result {
    writeln!(text, "\n## {title}\n")?;
    row(text, &columns)?;
    row(text, &["---"; N])
}

fn row(text: &mut String, cells: &[&str]) -> fmt::Result {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    writeln!(text, "| {} |", cells.join(" | "))
}

fn code(text: &str) -> String {
    if text.starts_with('`') { text.to_owned() } else { format!("`{text}`") }
}
