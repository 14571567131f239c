//! The network namespaces of the node's pods: which there are, whose they are, and running the
//! redirection in one of them.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use tokio::{process::Command, sync::Semaphore};

use crate::redirect::dns_of_another_pod;

/// Runs of the redirection at a time: each is some processes.
const AT_ONCE: usize = 4;
/// A tool that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where namespaces are, and what redirects.
#[derive(Debug)]
pub struct Namespaces {
    /// The runtime's folder of namespaces, as this process sees it.
    folder: PathBuf,
    /// `meshwright`, with its role `redirect`.
    redirect: PathBuf,
    slots: Semaphore,
}

/// What `ip -json address` says of an interface.
#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    addr_info: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    local: Option<IpAddr>,
}

impl Namespaces {
    pub fn new(folder: PathBuf, redirect: PathBuf) -> Self {
        Self { folder, redirect, slots: Semaphore::new(AT_ONCE) }
    }

    /// The namespace that the node knows under this path, if it is there. The folder may be elsewhere
    /// here, but names are the same.
    pub fn named(&self, path: &str) -> Option<PathBuf> {
        let here = self.folder.join(Path::new(path).file_name()?);
        here.exists().then_some(here)
    }

    /// The namespace in which one of these addresses is. A pod's address is its own on its node.
    pub async fn with_address(&self, addresses: &[IpAddr]) -> Option<PathBuf> {
        let mut entries = tokio::fs::read_dir(&self.folder).await.ok()?;
        while let Ok(Some(entry)) = entries.next_entry().await {
            let path = entry.path();
            let listed = output(enter(&path).args(["ip", "-json", "address"])).await;
            // Namespaces end all the time, also between two of these lines.
            let Ok(json) = listed else { continue };
            if addresses_of(&json).iter().any(|address| addresses.contains(address)) {
                return Some(path);
            }
        }
        None
    }

    /// Redirects the traffic of a namespace. Doing it again changes nothing.
    pub async fn redirect(&self, namespace: &Path, arguments: &[String]) -> Result<(), String> {
        let _slot = self.slots.acquire().await.map_err(|error| error.to_string())?;
        let mut command = enter(namespace);
        // The pod proves by itself that it works (`--check`), on the ports that a probe would need.
        command.arg(&self.redirect).args(["redirect", "--no-probe"]).args(arguments);
        command.args(dns_of_another_pod(arguments));
        command.env("MESHWRIGHT_LOG", "warn");
        output(&mut command).await.map(drop)
    }
}

fn addresses_of(json: &str) -> Vec<IpAddr> {
    let interfaces: Vec<Interface> = serde_json::from_str(json).unwrap_or_default();
    let addresses = interfaces.into_iter().flat_map(|interface| interface.addr_info);
    addresses.filter_map(|address| address.local).filter(|address| !address.is_loopback()).collect()
}

fn enter(namespace: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display()));
    command
}

/// Runs a command to its end; gives what it printed, or its complaint on one line.
async fn output(command: &mut Command) -> Result<String, String> {
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(PATIENCE, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("cannot run nsenter: {error}")),
        Err(_) => return Err(format!("not done within {PATIENCE:?}")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Err(if lines.is_empty() { output.status.to_string() } else { lines.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ip_lists() {
        let json = r#"[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},
            {"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.5","prefixlen":32},
                                          {"family":"inet6","local":"fd00::5","prefixlen":128}]},{}]"#;
        let want: [IpAddr; 2] = ["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        assert_eq!(addresses_of(json), want);
        assert!(addresses_of("").is_empty());
    }

    #[test]
    fn the_nodes_path_names_the_file_here() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cni-1"), "").unwrap();
        let namespaces = Namespaces::new(folder.path().to_owned(), PathBuf::from("meshwright"));
        let found = namespaces.named("/var/run/netns/cni-1");
        assert_eq!(found, Some(folder.path().join("cni-1")));
        assert_eq!(namespaces.named("/var/run/netns/cni-2"), None);
        assert_eq!(namespaces.named("/proc/7/.."), None);
    }

    #[tokio::test]
    async fn failures_are_in_the_tools_own_words() {
        let error = output(Command::new("sh").args(["-c", "echo 'no way' >&2; exit 1"])).await;
        assert_eq!(error, Err("no way".to_owned()));
    }
}
