//! What the machine must have that cannot be installed: Linux, root, room on the disk.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail, ensure};

use crate::{cache::Cache, process};

/// Room that tools, build results, images and a cluster's state take, generously.
const ROOM_GIB: u64 = 6;

/// Says in one sentence what is missing.
pub fn check(cache: &Cache) -> Result<()> {
    platform()?;
    ensure!(is_root()?, "a cluster needs root: run this again as root, for example with `sudo -E`");
    ensure!(
        cache.run("a-name-of-full-length").as_os_str().len() < 70,
        "the path of {} is too long for Unix sockets in it: set MESHWRIGHT_CACHE to a shorter one",
        cache.root().display()
    );
    room(cache.root())
}

/// Tests without a cluster need this much.
pub fn platform() -> Result<()> {
    ensure!(
        cfg!(target_os = "linux"),
        "this needs Linux: run it in a virtual machine, or use `cargo demo -- --kubeconfig FILE` from one"
    );
    Ok(())
}

/// Whether this process may do what a node does.
pub fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    Ok(uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"))
}

fn room(folder: &Path) -> Result<()> {
    let report = process::output(Command::new("df").arg("-Pk").arg(folder))?;
    let free = report.lines().nth(1).and_then(|line| line.split_whitespace().nth(3));
    let Some(free) = free.and_then(|kib| kib.parse::<u64>().ok()) else { return Ok(()) };
    let free = free >> 20;
    if free < ROOM_GIB {
        bail!(
            "{} has {free} GiB free and a cluster needs {ROOM_GIB}: make room, or set MESHWRIGHT_CACHE \
             to a folder on another disk",
            folder.display()
        );
    }
    Ok(())
}
