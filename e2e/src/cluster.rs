//! A running cluster, throwaway or somebody's own, as the demo and the scenarios see it.

mod boot;
mod cgroup;
mod component;
mod config;
mod dns;
mod down;
mod kernel;
pub mod loadbalancer;
mod network;
mod node;
mod pki;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

pub use self::{
    boot::{Booted, ensure, lock},
    down::{anything_left, take_away},
    node::{CniFolders, Node},
};
use crate::{
    interrupt, process,
    steps::{Steps, seconds},
};

/// A cluster that answers.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The network namespace its node is in; nothing for a cluster that is not ours.
    netns: Option<PathBuf>,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    helm: PathBuf,
    /// Where tools may keep what they cache, so that they leave the user's home alone.
    scratch: PathBuf,
    images: BTreeMap<String, String>,
    testapp: PathBuf,
    /// Folders of the pods' network, where they are not the usual ones.
    cni: Option<CniFolders>,
}

impl Cluster {
    /// A throwaway cluster's node.
    pub fn of_node(node: &Node) -> Result<Self> {
        Ok(Self {
            netns: Some(node.netns()),
            kubeconfig: node.kubeconfig("admin"),
            kubectl: node.tools.node("kubectl")?,
            helm: node.tools.helm()?,
            scratch: node.state.join("home"),
            images: BTreeMap::new(),
            testapp: PathBuf::new(),
            cni: Some(node.cni()),
        })
    }

    /// Somebody's own cluster.
    pub fn existing(
        kubeconfig: PathBuf,
        kubectl: PathBuf,
        helm: PathBuf,
        scratch: PathBuf,
    ) -> Self {
        let (images, testapp) = (BTreeMap::new(), PathBuf::new());
        Self { netns: None, kubeconfig, kubectl, helm, scratch, images, testapp, cni: None }
    }

    /// Adds what was imported: images by name, and the test application's program on this machine.
    pub fn with_images(mut self, images: BTreeMap<String, String>, testapp: PathBuf) -> Self {
        self.images = images;
        self.testapp = testapp;
        self
    }

    /// Runs kubectl; gives its standard output, and its complaint as the error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        process::output(self.kubectl_command().args(args))
    }

    /// As [`Self::kubectl`], with `stdin` on its standard input.
    pub fn kubectl_with_input(&self, args: &[&str], stdin: &str) -> Result<String> {
        process::output_with_input(self.kubectl_command().args(args), stdin)
    }

    /// Applies YAML documents.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_with_input(&arguments, yaml).map(drop)
    }

    /// Runs kubectl with `--output json` and parses what it prints.
    pub fn kubectl_json(&self, args: &[&str]) -> Result<Value> {
        let text = process::output(self.kubectl_command().args(args).args(["--output", "json"]))?;
        serde_json::from_str(&text)
            .with_context(|| format!("kubectl {} prints no JSON", args.join(" ")))
    }

    /// A program that reaches pods and ClusterIPs: in the node's network namespace where that is ours.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.netns {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg(program);
                command
            }
            None => Command::new(program),
        };
        if self.netns.is_some() {
            // Nothing in there is behind a proxy.
            for name in ["http_proxy", "https_proxy", "all_proxy"] {
                command.env_remove(name).env_remove(name.to_uppercase());
            }
        }
        command
    }

    /// Runs helm.
    pub fn helm(&self, args: &[&str]) -> Result<String> {
        let mut command = self.command(&self.helm.to_string_lossy());
        command.env("KUBECONFIG", &self.kubeconfig);
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, self.scratch.join("helm").join(folder));
        }
        process::output(command.args(args))
    }

    /// Reference of the test application's image.
    pub fn testapp_image(&self) -> &str {
        self.image("testapp").unwrap_or_default()
    }

    /// The same program on this machine, to be run by [`Self::command`].
    pub fn testapp_binary(&self) -> &Path {
        &self.testapp
    }

    /// Reference of an image that was imported.
    pub fn image(&self, name: &str) -> Option<&str> {
        self.images.get(name).map(String::as_str)
    }

    /// Folders of the pods' network on the node; nothing for a cluster whose nodes are elsewhere.
    pub fn cni(&self) -> Option<&CniFolders> {
        self.cni.as_ref()
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn kubectl_command(&self) -> Command {
        let mut command = self.command(&self.kubectl.to_string_lossy());
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.env("KUBECACHEDIR", self.scratch.join("kubectl")).env_remove("KUBECONFIG");
        command
    }
}

/// Waits for a condition, never for a time: polls `probe` until it gives something, or fails with
/// what it last saw.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(20);
    loop {
        interrupt::checkpoint();
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => anyhow!("it is not so yet"),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            return Err(last.context(format!("{what}: not within {}", seconds(timeout))));
        }
        thread::sleep(pause);
        pause = (pause * 3 / 2).min(Duration::from_millis(250));
    }
}

/// As a step that says what is waited for.
pub fn wait_step<T>(
    steps: &mut Steps,
    what: &str,
    timeout: Duration,
    probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    steps.run(what, || wait_for(what, timeout, probe))
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn waiting_ends_with_what_was_last_seen() {
        let error = wait_for::<()>("the moon", Duration::from_millis(50), || bail!("only the sun"));
        assert_eq!(format!("{:#}", error.unwrap_err()), "the moon: not within 0.1 s: only the sun");
    }

    #[test]
    fn waiting_ends_when_the_condition_holds() {
        let mut calls = 0;
        let value = wait_for("three calls", Duration::from_secs(5), || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(value.unwrap(), 3);
    }
}
