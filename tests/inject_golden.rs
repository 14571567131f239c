//! Injected pods: `golden/inject/CASE.in.yaml` becomes `CASE.out.yaml`. `MESHWRIGHT_UPDATE=1` rewrites
//! the latter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inject/fixture.rs"]
mod fixture;

use std::{env, fs, path::Path};

use fixture::{config, namespace};
use meshwright::webhook::inject::inject;
use serde_json::{Value, json};

#[test]
fn injected_pods_are_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inject");
    let mut cases = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(case) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".in.yaml")
        else {
            continue;
        };
        cases += 1;
        let pod: Value = serde_saphyr::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let outcome = inject(&pod, &namespace(), &config()).unwrap();
        let text = serde_saphyr::to_string(&json!({
            "decision": format!("{:?}", outcome.decision),
            "warnings": outcome.warnings,
            "pod": outcome.pod,
        }))
        .unwrap();
        let golden = folder.join(format!("{case}.out.yaml"));
        if env::var_os("MESHWRIGHT_UPDATE").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(&golden).unwrap_or_default(), text, "{case}");

        let again = inject(&outcome.pod, &namespace(), &config()).unwrap();
        assert_eq!(again.pod, outcome.pod, "{case} is changed by a second injection");
    }
    assert!(cases >= 12, "only {cases} cases were found");
}
