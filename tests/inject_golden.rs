//! Injected pods: each folder of `golden/inject` is a case (see `inject/fixture.rs`).
//! `MESHWRIGHT_UPDATE=1` rewrites its `result.yaml`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inject/fixture.rs"]
mod fixture;

use std::{env, fs};

use fixture::{Case, cases};
use meshwright::webhook::inject::{Decision, inject};
use serde_json::json;

#[test]
fn injected_pods_are_as_committed() {
    let cases = cases();
    assert!(cases.len() >= 16, "only {} cases were found", cases.len());
    let differing: Vec<_> = cases.iter().filter_map(difference).collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// What a case shows that is not what its folder says.
fn difference(case: &Case) -> Option<String> {
    let text = result(case);
    let golden = case.folder.join("result.yaml");
    if env::var_os("MESHWRIGHT_UPDATE").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    let wanted = fs::read_to_string(&golden).unwrap_or_default();
    if wanted != text {
        let line = wanted.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or_default();
        let got = text.lines().nth(line).unwrap_or_default();
        return Some(format!("{}: line {} is now {got:?}", case.name, line + 1));
    }
    let again = |pod| inject(pod, &case.namespace, &case.config);
    if let Ok(once) = again(&case.pod)
        && again(&once.pod).unwrap().pod != once.pod
    {
        return Some(format!("{} is changed by a second injection", case.name));
    }
    None
}

fn result(case: &Case) -> String {
    let result = match inject(&case.pod, &case.namespace, &case.config) {
        Ok(outcome) => {
            let (decision, reason) = match &outcome.decision {
                Decision::Inject(reason) => ("injected", reason),
                Decision::Skip(reason) => ("skipped", reason),
            };
            json!({
                decision: {"reason": reason.name(), "because": reason.to_string()},
                "warnings": outcome.warnings,
                "pod": outcome.pod,
            })
        }
        Err(error) => json!({"denied": error.to_string()}),
    };
    serde_saphyr::to_string(&result).unwrap()
}
