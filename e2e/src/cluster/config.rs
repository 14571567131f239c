//! Flags and configuration files of the node's components.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

use super::{
    cgroup,
    node::{DNS_SERVICE, NODE_NAME, Node, POD_RANGE, SERVICE_RANGE},
};
use crate::{process, tools};

/// Name of the image that holds a pod's namespaces open.
pub const PAUSE_IMAGE: &str = "local/pause:1";

/// Every configuration file.
pub const FILES: [&str; 7] = [
    "containerd.toml",
    "cni/10-pods.conflist",
    "kubelet.yaml",
    "proxy.yaml",
    "Corefile",
    "resolv.conf",
    "kubectl",
];

/// Writes every configuration file.
pub fn write(node: &Node) -> Result<()> {
    for folder in ["home", "log", "pids", "cni", "kubelet/plugins", "pod-logs", "containerd"] {
        fs::create_dir_all(node.state.join(folder))?;
    }
    fs::create_dir_all(node.cni().bin)?;
    for file in FILES {
        fs::write(node.state.join(file), text(node, file)?)?;
    }
    process::run(Command::new("chmod").arg("755").arg(node.kubectl()))
}

/// One configuration file.
pub fn text(node: &Node, file: &str) -> Result<String> {
    Ok(match file {
        "containerd.toml" => containerd(node)?,
        "cni/10-pods.conflist" => cni(node),
        "kubelet.yaml" => kubelet(node),
        "proxy.yaml" => proxy(node),
        "Corefile" => corefile(node),
        "resolv.conf" => format!("nameserver {}\n", node.address()),
        "kubectl" => kubectl(node)?,
        _ => bail!("no component has a file {file}"),
    })
}

pub fn etcd(node: &Node) -> Vec<String> {
    flags(&[
        ("data-dir", &path(node, "etcd")),
        ("listen-client-urls", "http://127.0.0.1:2379"),
        ("advertise-client-urls", "http://127.0.0.1:2379"),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
        // The data lives no longer than the machine stays up.
        ("unsafe-no-fsync", "true"),
        ("log-level", "warn"),
    ])
}

pub fn apiserver(node: &Node) -> Vec<String> {
    let pki = |file: &str| node.pki(file).display().to_string();
    flags(&[
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("secure-port", "6443"),
        ("advertise-address", &node.address()),
        ("tls-cert-file", &pki("apiserver.crt")),
        ("tls-private-key-file", &pki("apiserver.key")),
        ("client-ca-file", &pki("ca.crt")),
        ("token-auth-file", &pki("tokens.csv")),
        ("service-cluster-ip-range", SERVICE_RANGE),
        ("service-account-key-file", &pki("accounts.pub")),
        ("service-account-signing-key-file", &pki("accounts.key")),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("allow-privileged", "true"),
        // Without these two, `kubectl logs` and `exec` do not reach the kubelet.
        ("kubelet-preferred-address-types", "InternalIP"),
        ("kubelet-client-certificate", &pki("kubelet-client.crt")),
        ("kubelet-client-key", &pki("kubelet-client.key")),
    ])
}

pub fn manager(node: &Node) -> Vec<String> {
    let pki = |file: &str| node.pki(file).display().to_string();
    flags(&[
        ("kubeconfig", &config(node, "manager")),
        ("use-service-account-credentials", "true"),
        ("service-account-private-key-file", &pki("accounts.key")),
        ("root-ca-file", &pki("ca.crt")),
        ("cluster-signing-cert-file", &pki("ca.crt")),
        ("cluster-signing-key-file", &pki("ca.key")),
        ("leader-elect", "false"),
        // Endpoints appear when pods do; the default gathers changes for longer than a test waits.
        ("kube-api-qps", "200"),
        ("kube-api-burst", "400"),
    ])
}

pub fn scheduler(node: &Node) -> Vec<String> {
    flags(&[("kubeconfig", &config(node, "scheduler")), ("leader-elect", "false")])
}

pub fn kubelet_flags(node: &Node) -> Vec<String> {
    flags(&[
        ("config", &path(node, "kubelet.yaml")),
        ("kubeconfig", &config(node, "kubelet")),
        ("hostname-override", NODE_NAME),
        ("root-dir", &path(node, "kubelet")),
        ("node-ip", &node.address()),
    ])
}

pub fn proxy_flags(node: &Node) -> Vec<String> {
    flags(&[("config", &path(node, "proxy.yaml"))])
}

pub fn coredns(node: &Node) -> Vec<String> {
    vec!["-conf".to_owned(), path(node, "Corefile")]
}

fn flags(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

fn path(node: &Node, file: &str) -> String {
    node.state.join(file).display().to_string()
}

fn config(node: &Node, user: &str) -> String {
    node.kubeconfig(user).display().to_string()
}

/// All that containerd writes stays in the cluster's own folders; NRI would take a global socket.
fn containerd(node: &Node) -> Result<String> {
    let (root, state) = (path(node, "containerd"), node.runtime.join("containerd"));
    Ok(format!(
        r#"version = 3
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]
[grpc]
address = "{socket}"
[plugins.'io.containerd.internal.v1.opt']
path = "{root}/opt"
[plugins.'io.containerd.cri.v1.images']
snapshotter = "{snapshotter}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{added}", "{plugins}"]
conf_dir = "{cni}"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{runc}"
"#,
        state = state.display(),
        socket = node.containerd_socket().display(),
        snapshotter = snapshotter(&node.state)?,
        // What the cluster itself installs: the machine's folder is not its to write to.
        added = node.cni().bin.display(),
        plugins = tools::cni_plugins()?.display(),
        cni = node.cni().conf.display(),
        runc = node.runtime.join("runc").display(),
    ))
}

/// Overlays do not stack: on a machine that is a container itself, layers are copied.
fn snapshotter(folder: &Path) -> Result<&'static str> {
    let kind = process::output(Command::new("stat").args(["-f", "-c", "%T"]).arg(folder))?;
    Ok(if kind.trim() == "overlayfs" { "native" } else { "overlayfs" })
}

/// `ptp` and not `bridge`: each pod is routed, so replies through a ClusterIP need no br_netfilter on
/// the machine. No masquerading: the node has no way out.
fn cni(node: &Node) -> String {
    format!(
        r#"{{"cniVersion": "0.4.0", "name": "meshwright-{}", "plugins": [{{
  "type": "ptp", "ipMasq": false,
  "ipam": {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "{POD_RANGE}"}}]], "routes": [{{"dst": "0.0.0.0/0"}}]}}
}}]}}
"#,
        node.name,
        path(node, "cni-addresses")
    )
}

fn kubelet(node: &Node) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: {cgroup}
cgroupsPerQOS: true
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://{socket}
clusterDNS: [{DNS_SERVICE}]
clusterDomain: cluster.local
resolvConf: {state}/resolv.conf
podLogsDir: {state}/pod-logs
volumePluginDir: {state}/kubelet/plugins
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {ca}}}}}
authorization: {{mode: Webhook}}
failSwapOn: false
oomScoreAdj: 0
# The images are imported; nothing could bring one back that was removed for room.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {{memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}}
maxPods: 250
serializeImagePulls: false
"#,
        cgroup = cgroup::root(&node.name),
        socket = node.containerd_socket().display(),
        state = node.state.display(),
        ca = node.pki("ca.crt").display(),
    )
}

/// conntrack limits are the machine's and stay as they are.
fn proxy(node: &Node) -> String {
    format!(
        r"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clusterCIDR: {POD_RANGE}
clientConnection: {{kubeconfig: {}}}
hostnameOverride: {NODE_NAME}
oomScoreAdj: 0
conntrack: {{maxPerCore: 0, min: 0}}
nftables: {{minSyncPeriod: 100ms, syncPeriod: 30s}}
",
        config(node, "proxy")
    )
}

/// Names outside the cluster do not exist, and that is said at once.
fn corefile(node: &Node) -> String {
    format!(
        r"cluster.local in-addr.arpa ip6.arpa {{
    bind {address}
    errors
    ready 127.0.0.1:8181
    kubernetes {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
. {{
    bind {address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
",
        address = node.address(),
        kubeconfig = config(node, "dns"),
    )
}

fn kubectl(node: &Node) -> Result<String> {
    Ok(format!(
        "#!/bin/sh\nexec env -u KUBECONFIG NO_PROXY='*' KUBECACHEDIR={home}/kubectl {kubectl} --kubeconfig {config} \"$@\"\n",
        home = path(node, "home"),
        kubectl = node.tools.node("kubectl")?.display(),
        config = config(node, "admin"),
    ))
}
