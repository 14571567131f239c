//! `docs/annotations.md` is what the tables say. `MESHWRIGHT_UPDATE=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fs, path::Path};

use meshwright::webhook::inject::options::document;

#[test]
fn annotations_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/annotations.md");
    let wanted = document::markdown();
    if std::env::var_os("MESHWRIGHT_UPDATE").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == wanted,
        "{} is not what the tables say: run `MESHWRIGHT_UPDATE=1 cargo test --test annotations_fresh`",
        path.display()
    );
}
