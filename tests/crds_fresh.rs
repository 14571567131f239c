//! `crds/` holds what the types generate. `MESHWRIGHT_UPDATE=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{fs, path::Path};

use meshwright::{api::crd::Source, cli::crds::yaml};

#[test]
fn crds_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for source in Source::ALL {
        let generated = yaml(source).unwrap();
        // The chart can only read files of its own, so it has a copy, and its own option for each.
        for folder in ["crds", "charts/meshwright/crd-files"] {
            let path = root.join(folder).join(source.file_name());
            if std::env::var_os("MESHWRIGHT_UPDATE").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &generated).unwrap();
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                committed == generated,
                "{} is not what the types generate: run `MESHWRIGHT_UPDATE=1 cargo test --test crds_fresh`",
                path.display()
            );
        }
    }
}
