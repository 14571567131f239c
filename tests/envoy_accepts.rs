//! A real Envoy accepts what every golden case makes.
//!
//! `MESHWRIGHT_ENVOY` names the binary; else the one that the tools' cache holds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/bootstrap.rs"]
mod bootstrap;
#[path = "support/envoy.rs"]
mod support;

use std::{fs, process::Command};

use bootstrap::{bootstrap, envoy};

#[test]
fn golden_resources() {
    let envoy = envoy();
    let folder = tempfile::tempdir().unwrap();
    let mut refused = Vec::new();
    for case in support::cases() {
        for proxy in case.proxies() {
            let name = format!("{}-{}", case.name, proxy.name);
            let file = folder.path().join(format!("{name}.json"));
            fs::write(&file, bootstrap(&proxy).to_string()).unwrap();
            let output = Command::new(&envoy)
                .args(["--mode", "validate", "--log-level", "error", "--config-path"])
                .arg(&file)
                .output()
                .unwrap();
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                refused.push(format!("{name}: {}", text.chars().take(2000).collect::<String>()));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
