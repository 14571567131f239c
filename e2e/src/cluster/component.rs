//! The processes of a node: each in a session of its own, in the cluster's cgroup and network.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{cgroup, node::Node};
use crate::process;

/// Joins the cgroups, then becomes the program. It is `nsenter --net` and not `ip netns exec`, which
/// mounts a fresh /sys without the cgroups and separates the mounts of containerd and the kubelet.
const START: &str = r#"
umask 022
ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -H -n)"
IFS=:
for group in $1; do echo $$ > "$group/cgroup.procs" || exit 1; done
unset IFS
shift
exec setsid nsenter "$@"
"#;

/// Starts components of one node.
#[derive(Debug)]
pub struct Starter<'a> {
    node: &'a Node,
    groups: String,
}

impl<'a> Starter<'a> {
    pub fn new(node: &'a Node, groups: &[PathBuf]) -> Self {
        let groups: Vec<String> = groups.iter().map(|group| group.display().to_string()).collect();
        Self { node, groups: groups.join(":") }
    }

    /// Starts a program that outlives this process.
    pub fn start(&self, name: &str, program: &Path, arguments: &[String]) -> Result<()> {
        let node = self.node;
        let log = File::create(log(node, name))?;
        let home = node.state.join("home");
        let path = format!(
            "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            node.tools.containerd("")?.display()
        );
        let mut command = Command::new("sh");
        command
            .args(["-c", START, "sh", &self.groups])
            .arg(format!("--net={}", node.netns().display()))
            .arg(program)
            .args(arguments)
            // No proxy settings, no credentials of whoever started this.
            .env_clear()
            .env("PATH", path)
            .env("HOME", &home)
            .env("KUBECACHEDIR", home.join("kubectl"))
            .current_dir(&node.state)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let pid =
            process::spawn(&mut command).with_context(|| format!("cannot start {name}"))?.id();
        fs::write(pid_file(node, name), pid.to_string())?;
        // Until it has joined the cgroup, it would be taken for a stranger.
        while process::is_alive(pid) && !cgroup::holds(&node.name, pid) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Whether a component runs.
pub fn is_running(node: &Node, name: &str) -> bool {
    pid(node, name).is_some_and(|pid| process::is_alive(pid) && cgroup::holds(&node.name, pid))
}

/// Those of the started components that do not run any more.
pub fn dead(node: &Node) -> Vec<String> {
    let started = fs::read_dir(node.state.join("pids")).into_iter().flatten().flatten();
    let mut names: Vec<String> = started
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !is_running(node, name))
        .collect();
    names.sort();
    names
}

/// The last words of a component.
pub fn last_words(node: &Node, name: &str) -> String {
    let file = log(node, name);
    let text = fs::read_to_string(&file).unwrap_or_default();
    format!("the end of {}:\n{}", file.display(), process::tail(&text, 15))
}

fn pid(node: &Node, name: &str) -> Option<u32> {
    fs::read_to_string(pid_file(node, name)).ok()?.trim().parse().ok()
}

fn pid_file(node: &Node, name: &str) -> PathBuf {
    node.state.join("pids").join(name)
}

fn log(node: &Node, name: &str) -> PathBuf {
    node.state.join("log").join(format!("{name}.log"))
}
