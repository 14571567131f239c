//! A node of folders and namespaces, with the real daemon and the real plugin.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    api_server::ApiServer,
    inside::{LISTENING, REPLY, WHAT},
};

/// The network's configuration as its owner wrote it.
pub const CONFLIST: &str =
    "{\"name\":\"pods\", \"cniVersion\":\"1.0.0\",\n \"plugins\": [{\"type\":\"ptp\"}]}\n";
const RESULT: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.88.0.2/24"}]}"#;

pub struct Node {
    root: tempfile::TempDir,
    pub api: ApiServer,
    admin_port: u16,
    daemon: Option<Child>,
}

impl Node {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let (api, port) = ApiServer::start();
        for folder in ["bin", "net.d"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("net.d/10-pods.conflist"), CONFLIST).unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {}}],
        });
        fs::write(root.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { root, api, admin_port: free_port(), daemon: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// With the capabilities that the chart gives it, and no other.
    pub fn start_daemon(&mut self, flags: &[&str]) {
        let mut command = Command::new("setpriv");
        command.arg("--bounding-set=-all,+sys_admin,+net_admin,+net_raw");
        command.arg(env!("CARGO_BIN_EXE_meshwright-cni-daemon"));
        for (flag, value) in [
            ("--node", PathBuf::from("node1")),
            ("--namespace", PathBuf::from("meshwright-system")),
            ("--bin-dir", self.path("bin")),
            ("--conf-dir", self.path("net.d")),
            ("--netns-dir", PathBuf::from("/run/netns")),
            ("--run-dir", self.path("run")),
            ("--plugin", PathBuf::from(env!("CARGO_BIN_EXE_meshwright-cni"))),
            ("--redirect", PathBuf::from(env!("CARGO_BIN_EXE_meshwright"))),
            ("--kubeconfig", self.path("kubeconfig")),
        ] {
            command.arg(flag).arg(value);
        }
        command.args(["--admin-port", &self.admin_port.to_string()]).args(flags);
        self.daemon = Some(command.spawn().unwrap());
        until("the daemon is ready", || self.is_ready());
    }

    /// Ends the daemon as the kubelet does.
    pub fn stop_daemon(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let kill = Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status();
        assert!(kill.unwrap().success());
        assert!(daemon.wait().unwrap().success());
    }

    /// Stops it in the middle of everything, or lets it go on.
    pub fn signal_daemon(&self, signal: &str) {
        let id = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.admin_port)) else {
            return false;
        };
        let mut line = String::new();
        let asked =
            stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        asked.is_ok()
            && BufReader::new(stream).read_line(&mut line).is_ok()
            && line.starts_with("HTTP/1.1 200")
    }

    pub fn conflist(&self) -> String {
        fs::read_to_string(self.path("net.d/10-pods.conflist")).unwrap()
    }

    /// Runs the installed plugin as the container runtime does.
    pub fn plugin(&self, command: &str, pod: &Pod) -> Output {
        let list: Value = serde_json::from_str(&self.conflist()).unwrap();
        let plugins = list["plugins"].as_array().unwrap();
        let mut config = plugins.last().unwrap().clone();
        assert_eq!(config["type"], "meshwright-cni");
        config["cniVersion"] = list["cniVersion"].clone();
        config["name"] = list["name"].clone();
        config["prevResult"] = serde_json::from_str(RESULT).unwrap();
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={0};K8S_POD_UID={0}",
            pod.name
        );
        let mut child = Command::new(self.path("bin/meshwright-cni"))
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", &pod.name)])
            .envs([("CNI_NETNS", pod.path().as_str()), ("CNI_IFNAME", "eth0")])
            .env("CNI_ARGS", args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// An ADD, which must succeed and give the network's own result. Gives its complaints.
    pub fn add(&self, pod: &Pod) -> String {
        let output = self.plugin("ADD", pod);
        assert!(output.status.success(), "{output:?}");
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result, serde_json::from_str::<Value>(RESULT).unwrap());
        String::from_utf8(output.stderr).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }
}

/// A pod's network namespace with a proxy in it, gone when dropped.
pub struct Pod {
    pub name: String,
    address: String,
    proxy: Option<Child>,
}

impl Pod {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mw-cni-{}-{number}", std::process::id());
        let address = format!("10.88.{number}.{}", 2 + std::process::id() % 250);
        let mut pod = Self { name, address, proxy: None };
        ip(&format!("netns add {}", pod.name));
        for line in [
            "link set lo up".to_owned(),
            "link add eth0 type veth peer name peer".to_owned(),
            format!("address add {}/24 dev eth0", pod.address),
            "link set eth0 up".to_owned(),
            "link set peer up".to_owned(),
        ] {
            ip(&format!("-n {} {line}", pod.name));
        }
        pod.serve();
        pod
    }

    fn serve(&mut self) {
        let mut proxy = self.inside("serve").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(proxy.stdout.take().unwrap()).lines();
        let listening = lines.map_while(Result::ok).any(|line| line == LISTENING);
        self.proxy = Some(proxy);
        assert!(listening, "the proxy does not listen");
    }

    fn inside(&self, what: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "inside::inside", "--nocapture"]).env(WHAT, what);
        command.stdin(Stdio::null());
        command
    }

    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    /// Who answers a connection of the application to somewhere else.
    pub fn connect(&self) -> String {
        let elsewhere = self.address.rsplit_once('.').unwrap().0.to_owned() + ".254:80";
        let output = self.inside(&elsewhere).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let reply = text.lines().find_map(|line| line.strip_prefix(REPLY));
        reply.unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    /// As injection leaves it where the plugin redirects, and its init container holds it.
    pub fn meshed(&self) -> Value {
        let state = json!({"running": {"startedAt": "2026-11-21T10:00:00Z"}});
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "shop", "name": self.name, "uid": self.name, "resourceVersion": "1",
                "annotations": {"meshwright.dev/status": "{}", "meshwright.dev/redirect": "[]"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart",
                                     "uid": "r1", "controller": true}],
            },
            "spec": {
                "nodeName": "node1",
                "initContainers": [
                    {"name": "meshwright-redirect", "args": ["redirect", "--check"]},
                ],
                "containers": [{"name": "app"}],
            },
            "status": {
                "phase": "Pending",
                "podIPs": [{"ip": self.address}],
                "initContainerStatuses": [{
                    "name": "meshwright-redirect", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": state,
                }],
            },
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(proxy) = &mut self.proxy {
            drop(proxy.kill());
            drop(proxy.wait());
        }
        drop(Command::new("ip").args(["netns", "delete", &self.name]).status());
    }
}

/// Waits for a condition.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}
