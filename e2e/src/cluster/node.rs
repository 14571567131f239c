//! The one node of a throwaway cluster: its name, folders and addresses.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{cache::Cache, tools::Tools};

/// Sockets, mounts and locks of running clusters: gone after a reboot, as they are.
pub const RUNTIME: &str = "/run/meshwright";
pub const NODE_NAME: &str = "node1";
pub const POD_RANGE: &str = "10.244.0.0/16";
pub const SERVICE_RANGE: &str = "10.96.0.0/16";
pub const API_SERVICE: &str = "10.96.0.1";
pub const DNS_SERVICE: &str = "10.96.0.10";

/// Where a node keeps what a CNI plugin needs.
#[derive(Debug, Clone)]
pub struct CniFolders {
    /// Programs.
    pub bin: PathBuf,
    /// Network configurations.
    pub conf: PathBuf,
    /// For the plugin's own use.
    pub run: PathBuf,
    /// Network namespaces of pods.
    pub netns: PathBuf,
}

/// Where everything of one throwaway cluster is.
#[derive(Debug, Clone)]
pub struct Node {
    pub name: String,
    /// Number of its subnets, one for each cluster on this machine.
    pub index: u8,
    pub state: PathBuf,
    pub runtime: PathBuf,
    pub tools: Tools,
}

impl Node {
    /// The node of a cluster that has a network already.
    pub fn load(cache: &Cache, name: &str) -> Result<Self> {
        let file = cache.run(name).join("index");
        let index = fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .trim()
            .parse()?;
        Ok(Self::new(cache, name, index))
    }

    pub fn new(cache: &Cache, name: &str, index: u8) -> Self {
        Self {
            name: name.to_owned(),
            index,
            state: cache.run(name),
            runtime: runtime(name),
            tools: Tools::new(cache),
        }
    }

    pub fn netns(&self) -> PathBuf {
        netns(&self.name)
    }

    /// The node's own address.
    pub fn address(&self) -> String {
        format!("198.18.{}.2", self.index)
    }

    /// The machine's address on the link to the node.
    pub fn host_address(&self) -> String {
        format!("198.18.{}.1", self.index)
    }

    /// First three octets of the addresses for Services of type LoadBalancer.
    pub fn balancer_range(&self) -> String {
        format!("198.19.{}", self.index)
    }

    /// Name of the link's end on the machine.
    pub fn host_link(&self) -> String {
        format!("mw{}h", self.index)
    }

    /// Name of the link's end in the node.
    pub fn node_link(&self) -> String {
        format!("mw{}n", self.index)
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.runtime.join("containerd.sock")
    }

    /// Folders of the pods' network.
    pub fn cni(&self) -> CniFolders {
        CniFolders {
            bin: self.state.join("cni-bin"),
            conf: self.state.join("cni"),
            run: self.runtime.join("cni"),
            // By `netns_mounts_under_state_dir` of containerd.
            netns: self.runtime.join("containerd/io.containerd.grpc.v1.cri/netns"),
        }
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.state.join(format!("{user}.kubeconfig"))
    }

    pub fn pki(&self, file: &str) -> PathBuf {
        self.state.join("pki").join(file)
    }

    /// A kubectl for this cluster, for people and for the load balancer.
    pub fn kubectl(&self) -> PathBuf {
        self.state.join("kubectl")
    }
}

/// Name of what the machine sees of a cluster: network namespace, cgroup.
pub fn global_name(name: &str) -> String {
    format!("meshwright-{name}")
}

/// The cluster's network namespace.
pub fn netns(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(global_name(name))
}

/// The cluster's folder for sockets and mounts.
pub fn runtime(name: &str) -> PathBuf {
    PathBuf::from(RUNTIME).join(name)
}
