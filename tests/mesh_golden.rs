//! Golden cases of the mesh stage: `tests/golden/mesh/CASE/input.yaml` → what the mesh is, and what
//! it says about the objects.

use std::fmt::Write;

use meshwright::{mesh, watch};

#[test]
fn cases() {
    insta::glob!("golden/mesh/*/input.yaml", |path| {
        let snapshot = watch::from_yaml(&std::fs::read_to_string(path).unwrap()).unwrap();
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
            insta::assert_snapshot!("mesh", format!("{mesh:#?}"));
            insta::assert_snapshot!("endpoints", format!("{endpoints:#?}"));
            insta::assert_snapshot!("diagnostics", said);
        });
    });
}
