//! Golden cases of the mesh stage: `tests/golden/mesh/CASE/input.yaml` → what the mesh is, and what
//! it says about the objects.

use std::{fmt::Write, fs};

use meshwright::{mesh, watch};

#[test]
fn cases() {
    insta::glob!("golden/mesh/*/input.yaml", |path| {
        let snapshot = watch::from_yaml(&fs::read_to_string(path).unwrap()).unwrap();
        let snapshot = mesh::discovery::visible(&snapshot);
        let endpoints = mesh::endpoints::build(&snapshot);
        let (mesh, diagnostics) = mesh::build(&snapshot, &endpoints);
        let mut said = String::new();
        for found in &diagnostics {
            writeln!(said, "{:?} {}: {found}", found.severity, found.reason).unwrap();
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(path.parent().unwrap());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_snapshot_suffix("");
        settings.set_omit_expression(true);
        settings.bind(|| {
            insta::assert_snapshot!("mesh", compact(&format!("{mesh:#?}")));
            insta::assert_snapshot!("endpoints", compact(&format!("{endpoints:#?}")));
            insta::assert_snapshot!("diagnostics", said);
        });
    });
}

/// Joins what fits on one line, and leaves empty fields out: a golden file is there to be read.
fn compact(debug: &str) -> String {
    const WIDTH: usize = 110;
    let mut open: Vec<usize> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for line in debug.lines() {
        let text = line.trim();
        if text.starts_with('}') && text.ends_with('{') {
            // The end of a map's key and the beginning of its value.
            open.pop();
            open.push(lines.len());
            lines.push(line.to_owned());
        } else if text.starts_with([')', ']', '}']) {
            let start = open.pop().expect("an opening line");
            let joined = lines[start].clone()
                + &lines[start + 1..].iter().map(|l| l.trim()).collect::<Vec<_>>().join(" ")
                + text;
            let joined = joined.replace(",)", ")").replace(",]", "]").replace(",}", "}");
            if joined.len() <= WIDTH {
                lines.truncate(start);
                lines.push(joined);
            } else {
                lines.push(line.to_owned());
            }
        } else {
            if text.ends_with(['(', '[', '{']) {
                open.push(lines.len());
            }
            lines.push(line.to_owned());
        }
        let empty = |line: &String| {
            [": [],", ": {},", ": None,", ": HeaderChanges {},"]
                .iter()
                .any(|end| line.ends_with(end))
        };
        if lines.len() > 1 && lines.last().is_some_and(empty) {
            lines.pop();
        }
    }
    lines.join("\n")
}
