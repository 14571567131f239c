//! Takes a cluster away: processes, mounts, network, cgroups, files, in this order.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{
    cgroup, kernel, network,
    node::{self, Node},
};
use crate::{cache::Cache, interrupt, process, steps, tools::remove_folder};

/// Whether anything of a cluster is on this machine.
pub fn anything_left(cache: &Cache, name: &str) -> bool {
    cache.run(name).exists()
        || node::runtime(name).exists()
        || node::netns(name).exists()
        || cgroup::exists(name)
}

/// Takes everything of the cluster away. Works from names alone, so also after a reboot or a crash.
pub fn down(cache: &Cache, name: &str) -> Result<()> {
    let index = Node::load(cache, name).ok().map(|node| node.index);
    let folders = [cache.run(name), node::runtime(name)];
    cgroup::end_processes(name)?;
    let tasks = tasks(&folders[1]);
    let sockets = shim_sockets(&tasks);
    unmount(&folders)?;
    network::down(name, index);
    cgroup::down(name)?;
    for socket in sockets {
        fs::remove_file(socket).ok();
    }
    remove_dangling_logs(&folders[0]);
    remove_cni_results(name, &tasks);
    for folder in &folders {
        remove_folder(folder)?;
    }
    kernel::restore();
    Ok(())
}

/// [`down`] for a person who asked for it: an interrupt does not leave half of it.
pub fn take_away(cache: &Cache, name: &str) -> Result<()> {
    let undo = (cache.clone(), name.to_owned());
    let _undo = interrupt::on_interrupt(move || end(&undo.0, &undo.1));
    down(cache, name)
}

/// [`down`] where nobody is left to return an error to.
pub fn end(cache: &Cache, name: &str) {
    if let Err(error) = down(cache, name) {
        steps::print_error(&error.context(format!(
            "the cluster {name} is not gone entirely; try `cargo demo -- down --name {name}`"
        )));
    }
}

/// Unmounts everything below the folders, the innermost first.
fn unmount(folders: &[PathBuf]) -> Result<()> {
    for _ in 0..10 {
        let mounts = mounts_below(&fs::read_to_string("/proc/self/mountinfo")?, folders);
        if mounts.is_empty() {
            return Ok(());
        }
        // Lazily: a mount in another mount namespace keeps it busy for no reason of ours.
        for some in mounts.chunks(200) {
            process::succeeds(Command::new("umount").arg("--lazy").args(some));
        }
    }
    let left = mounts_below(&fs::read_to_string("/proc/self/mountinfo")?, folders);
    ensure!(left.is_empty(), "cannot unmount {}", left[0].display());
    Ok(())
}

fn mounts_below(table: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|path| PathBuf::from(path.replace("\\040", " ")))
        .filter(|path| folders.iter().any(|folder| path.starts_with(folder)))
        .collect();
    mounts.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    mounts
}

/// Folders of the containers that ran, each with the name of its container.
fn tasks(runtime: &Path) -> Vec<PathBuf> {
    let tasks = runtime.join("containerd/io.containerd.runtime.v2.task/k8s.io");
    fs::read_dir(tasks).into_iter().flatten().flatten().map(|task| task.path()).collect()
}

/// Sockets of the containers' shims, which are in a folder that all containerds share.
fn shim_sockets(tasks: &[PathBuf]) -> Vec<PathBuf> {
    tasks
        .iter()
        .filter_map(|task| fs::read(task.join("bootstrap.json")).ok())
        .filter_map(|text| serde_json::from_slice::<Value>(&text).ok())
        .filter_map(|shim| Some(PathBuf::from(shim["address"].as_str()?.strip_prefix("unix://")?)))
        .collect()
}

/// The kubelet links every container's log into a folder that it cannot be told to leave alone.
fn remove_dangling_logs(state: &Path) {
    for entry in fs::read_dir("/var/log/containers").into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(state)) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// The same with libcni and the results of its plugins: named by network and container.
fn remove_cni_results(name: &str, tasks: &[PathBuf]) {
    let network = format!("{}-", node::global_name(name));
    let containers: Vec<_> = tasks.iter().filter_map(|task| task.file_name()?.to_str()).collect();
    for entry in fs::read_dir("/var/lib/cni/results").into_iter().flatten().flatten() {
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.starts_with(&network) || containers.iter().any(|id| file.contains(id)) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_mounts_come_first_and_others_not_at_all() {
        let table = "1 0 0:1 / / rw - ext4 x rw\n\
                     2 1 0:2 / /run/a/b rw - tmpfs x rw\n\
                     3 2 0:3 / /run/a/b/c\\040d rw - tmpfs x rw\n\
                     4 1 0:4 / /run/ab rw - tmpfs x rw\n";
        let mounts = mounts_below(table, &[PathBuf::from("/run/a")]);
        assert_eq!(mounts, ["/run/a/b/c d", "/run/a/b"].map(PathBuf::from));
    }
}
