//! The cluster's own cgroup, in which everything of it runs: what is in there is ours to end.
//!
//! With cgroup v1 each controller is a hierarchy with a group of the same name; with v2 there is one.
//! Below it are `system` (the components and the containers' shims) and `kubepods` (the kubelet's).

use std::{
    collections::BTreeSet,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::node::global_name;
use crate::{interrupt, process};

const SYSTEM: &str = "system";

/// Path of the group as the kubelet wants it.
pub fn root(name: &str) -> String {
    format!("/{}", global_name(name))
}

/// Makes the groups, and gives those that a component must join.
pub fn up(name: &str) -> Result<Vec<PathBuf>> {
    let _gate = interrupt::gate();
    let hierarchies = hierarchies()?;
    ensure!(!hierarchies.is_empty(), "no cgroups are mounted: mount cgroup v2 on /sys/fs/cgroup");
    let mut joined = Vec::new();
    for hierarchy in &hierarchies {
        let group = hierarchy.join(global_name(name));
        let system = group.join(SYSTEM);
        fs::create_dir_all(&system)
            .with_context(|| format!("cannot make the cgroup {}", system.display()))?;
        for (parent, child) in [(hierarchy, &group), (&group, &system)] {
            pass_on_controllers(parent);
            pass_on_cpuset(parent, child);
        }
        joined.push(system);
    }
    Ok(joined)
}

/// With v2, children have only the controllers that their parent hands down. Some may be refused
/// (real-time processes, a parent with processes of its own); the kubelet says which it misses.
fn pass_on_controllers(group: &Path) {
    let Ok(controllers) = fs::read_to_string(group.join("cgroup.controllers")) else { return };
    for controller in controllers.split_whitespace() {
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// With v1, a cpuset starts empty and cannot hold a process until it is filled.
fn pass_on_cpuset(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), child.join(file));
        if fs::read_to_string(&to).is_ok_and(|value| value.trim().is_empty())
            && let Ok(value) = fs::read_to_string(from)
        {
            fs::write(to, value).ok();
        }
    }
}

/// Whether a process belongs to the cluster.
pub fn holds(name: &str, pid: u32) -> bool {
    let group = format!("{}/", root(name));
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| {
        groups.lines().any(|line| line.rsplit(':').next().is_some_and(|path| path.contains(&group)))
    })
}

/// Ends every process of the cluster. Nothing there is worth an orderly end.
pub fn end_processes(name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let pids: Vec<u32> = processes(name)?.into_iter().collect();
        if pids.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "processes {pids:?} do not end, not even killed");
        process::signal("KILL", &pids);
        thread::sleep(Duration::from_millis(30));
    }
}

/// Removes the groups, which must be empty.
pub fn down(name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(global_name(name));
        // The kernel needs a moment to let go of a group whose last process just ended.
        while let Err(error) = remove(&group) {
            if Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Whether anything of the cluster's groups is there.
pub fn exists(name: &str) -> bool {
    hierarchies().is_ok_and(|all| all.iter().any(|one| one.join(global_name(name)).exists()))
}

fn processes(name: &str) -> Result<BTreeSet<u32>> {
    let mut pids = BTreeSet::new();
    for hierarchy in hierarchies()? {
        collect(&hierarchy.join(global_name(name)), &mut pids);
    }
    Ok(pids)
}

fn collect(group: &Path, pids: &mut BTreeSet<u32>) {
    let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // A process of another namespace reads as 0.
    pids.extend(members.lines().filter_map(|pid| pid.parse().ok()).filter(|pid: &u32| *pid != 0));
    for child in children(group) {
        collect(&child, pids);
    }
}

fn remove(group: &Path) -> Result<()> {
    for child in children(group) {
        remove(&child)?;
    }
    match fs::remove_dir(group) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the cgroup {}", group.display()))
        }
        _ => Ok(()),
    }
}

fn children(group: &Path) -> Vec<PathBuf> {
    fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Mount points of all cgroup hierarchies of this machine.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read the list of mounts")?;
    Ok(parse_hierarchies(&mounts))
}

fn parse_hierarchies(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))))
        .map(|fields| PathBuf::from(fields[1]))
        .filter(|path| path.starts_with("/sys/fs/cgroup"))
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup2 /elsewhere cgroup2 rw 0 0\n";
        let paths = parse_hierarchies(hybrid);
        assert_eq!(paths, ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
        let unified = parse_hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
        assert_eq!(unified, [PathBuf::from("/sys/fs/cgroup")]);
    }
}
