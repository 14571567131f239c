//! Packages of the distribution: what has to be the machine's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail, ensure};

use super::find_program;
use crate::{interrupt, process};

/// A program and the Debian package it is in.
pub type Program = (&'static str, &'static str);

/// What a node needs.
pub const NODE: &[Program] = &[
    ("runc", "runc"),
    ("iptables-restore", "iptables"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("openssl", "openssl"),
    ("strip", "binutils"),
    ("kill", "procps"),
];

/// What a wheel is unpacked with.
pub const PYTHON: &[Program] = &[("python3", "python3-pip")];

/// The CNI plugins' folder, by distribution.
pub fn cni_plugins() -> Option<PathBuf> {
    ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]
        .into_iter()
        .map(PathBuf::from)
        .find(|folder| folder.join("ptp").is_file() && folder.join("host-local").is_file())
}

/// Installs the packages of missing programs with apt, where there is apt.
pub fn ensure(programs: &[Program], log: &Path) -> Result<()> {
    let missing = missing(programs);
    if missing.is_empty() {
        return Ok(());
    }
    if find_program("apt-get").is_none() {
        bail!(
            "these packages are missing and there is no apt-get to install them: {}; install them \
             (or what holds the same programs) and run this again",
            missing.join(", ")
        );
    }
    apt(&["update"], &[], log)?;
    apt(&["install", "--yes", "--no-install-recommends"], &missing, log)?;
    let still = self::missing(programs);
    ensure!(
        still.is_empty(),
        "apt-get installed no usable {}: see {}",
        still.join(", "),
        log.display()
    );
    Ok(())
}

fn missing(programs: &[Program]) -> Vec<&'static str> {
    let mut packages: Vec<&'static str> = programs
        .iter()
        .filter(|(program, _)| find_program(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if programs == PYTHON && packages.is_empty() && !has_pip() {
        packages.push("python3-pip");
    }
    if programs == NODE && cni_plugins().is_none() {
        packages.push("containernetworking-plugins");
    }
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn has_pip() -> bool {
    process::succeeds(Command::new("python3").args(["-m", "pip", "--version"]))
}

/// Runs apt to its end whatever happens: half-installed packages would outlive an interrupt. So it
/// gets a process group of its own, which a terminal's Ctrl-C spares, and holds the gate.
fn apt(arguments: &[&str], packages: &[&str], log: &Path) -> Result<()> {
    use std::os::unix::process::CommandExt;

    let _gate = interrupt::gate();
    let output = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .process_group(0)
        .output()?;
    fs::write(log, [&output.stdout[..], &output.stderr[..]].concat())?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!(
            "apt-get {} {} failed; install the packages by hand and run this again: {}",
            arguments.join(" "),
            packages.join(" "),
            process::tail(&complaint, 10)
        );
    }
    Ok(())
}
