//! What the plugin tells the daemon, over the socket and by files that outlive both.
//!
//! The plugin notes every sandbox before it asks the daemon about it, and takes the note away when
//! the sandbox ends. So a daemon that was away finds what it has missed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Name of the socket in the folder that plugin and daemon share.
pub const SOCKET: &str = "cni.sock";
/// Name of the folder of notes in it.
const NOTES: &str = "sandboxes";

/// A pod's network namespace, as the container runtime described it to the plugin.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    pub container_id: String,
    pub interface: String,
    /// Path on the node.
    pub netns: String,
    pub namespace: String,
    pub pod: String,
    /// Empty where the runtime is too old to tell.
    #[serde(default)]
    pub uid: String,
}

impl Sandbox {
    /// Whether this is a sandbox of that pod.
    pub fn belongs_to(&self, namespace: &str, pod: &str, uid: &str) -> bool {
        self.namespace == namespace && self.pod == pod && (self.uid.is_empty() || self.uid == uid)
    }
}

/// What became of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "outcome", content = "reason", rename_all = "kebab-case")]
pub enum Answer {
    /// Its traffic goes through its proxy.
    Redirected,
    /// It needs no redirection by the plugin.
    NotOurs(String),
    Failed(String),
}

/// The notes of one node.
#[derive(Clone, Debug)]
pub struct Notes {
    folder: PathBuf,
}

impl Notes {
    /// The notes in the folder that plugin and daemon share.
    pub fn of(run_dir: &Path) -> Self {
        Self { folder: run_dir.join(NOTES) }
    }

    /// Notes a sandbox: all of it, or nothing.
    pub fn write(&self, sandbox: &Sandbox) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let file = self.file(&sandbox.container_id, &sandbox.interface);
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec(sandbox)?)?;
        fs::rename(new, file)
    }

    /// Forgets a sandbox, if it was noted.
    pub fn remove(&self, container_id: &str, interface: &str) -> io::Result<()> {
        match fs::remove_file(self.file(container_id, interface)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every sandbox that is noted. What cannot be read is none.
    pub fn all(&self) -> Vec<Sandbox> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "json"))
            .filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok())
            .collect()
    }

    /// Forgets every sandbox for which `keep` says no.
    pub fn retain(&self, keep: impl Fn(&Sandbox) -> bool) -> io::Result<()> {
        for sandbox in self.all().iter().filter(|sandbox| !keep(sandbox)) {
            self.remove(&sandbox.container_id, &sandbox.interface)?;
        }
        Ok(())
    }

    /// A sandbox may have several networks, each with an interface of its own.
    fn file(&self, container_id: &str, interface: &str) -> PathBuf {
        self.folder.join(format!("{container_id}.{interface}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(container_id: &str, interface: &str) -> Sandbox {
        Sandbox {
            container_id: container_id.to_owned(),
            interface: interface.to_owned(),
            netns: "/run/netns/cni-1".to_owned(),
            namespace: "shop".to_owned(),
            pod: "cart-0".to_owned(),
            uid: "u1".to_owned(),
        }
    }

    #[test]
    fn notes_last_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::of(folder.path());
        assert_eq!(notes.all(), []);
        let [first, second] = [sandbox("a", "eth0"), sandbox("a", "net1")];
        notes.write(&first).unwrap();
        notes.write(&first).unwrap();
        notes.write(&second).unwrap();
        assert_eq!(notes.all().len(), 2);
        notes.remove("a", "eth0").unwrap();
        notes.remove("a", "eth0").unwrap();
        assert_eq!(Notes::of(folder.path()).all(), [second]);
        notes.retain(|_| false).unwrap();
        assert_eq!(notes.all(), []);
    }

    #[test]
    fn a_pod_made_anew_under_its_name_is_another() {
        let mut sandbox = sandbox("a", "eth0");
        assert!(sandbox.belongs_to("shop", "cart-0", "u1"));
        assert!(!sandbox.belongs_to("shop", "cart-0", "u2"));
        sandbox.uid.clear();
        assert!(sandbox.belongs_to("shop", "cart-0", "u2"));
        assert!(!sandbox.belongs_to("shop", "cart-1", "u2"));
    }
}
