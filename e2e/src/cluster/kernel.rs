//! Kernel settings that the kubelet changes for the whole machine: put back when the last cluster
//! of this machine ends.

use std::{fmt::Write, fs, path::PathBuf};

use anyhow::Result;

use super::node::RUNTIME;

const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Remembers the settings as they were before the first cluster.
pub fn remember() -> Result<()> {
    let file = file();
    if file.exists() {
        return Ok(());
    }
    let mut text = String::new();
    for setting in SETTINGS {
        if let Ok(value) = fs::read_to_string(path(setting)) {
            writeln!(text, "{setting} {}", value.trim())?;
        }
    }
    fs::write(file, text)?;
    Ok(())
}

/// Puts the settings back unless another cluster still runs.
pub fn restore() {
    let others = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    if others.into_iter().any(|ns| ns.file_name().to_string_lossy().starts_with("meshwright-")) {
        return;
    }
    let Ok(text) = fs::read_to_string(file()) else { return };
    for (setting, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        fs::write(path(setting), value).ok();
    }
    fs::remove_file(file()).ok();
}

fn file() -> PathBuf {
    PathBuf::from(RUNTIME).join("kernel-settings")
}

fn path(setting: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(setting)
}
