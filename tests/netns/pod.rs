//! A pod and a client, each in a network namespace of its own, joined by a cable.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::inside::{LISTENING, REPLY, WHAT};

/// The addresses of one family.
pub struct Addresses {
    pub pod: &'static str,
    pub client: &'static str,
    /// Another address of the client.
    pub other: &'static str,
    pub loopback: &'static str,
    pub passthrough: &'static str,
}

pub const V4: Addresses = Addresses {
    pod: "10.77.0.1",
    client: "10.77.0.2",
    other: "10.77.0.3",
    loopback: "127.0.0.1",
    passthrough: "127.0.0.6",
};

pub const V6: Addresses = Addresses {
    pod: "fd77::1",
    client: "fd77::2",
    other: "fd77::3",
    loopback: "::1",
    passthrough: "::6",
};

/// How a run of the binary ended.
pub struct Run {
    pub success: bool,
    pub stderr: String,
}

impl Run {
    pub fn expect_success(self) {
        assert!(self.success, "{}", self.stderr);
    }
}

/// Two namespaces with listeners in them, all gone when dropped.
pub struct Pod {
    inside: String,
    outside: String,
    servers: Vec<Child>,
    binary: Arc<Binary>,
}

impl Pod {
    pub fn new() -> Self {
        Self::build(true)
    }

    pub fn without_ipv6() -> Self {
        Self::build(false)
    }

    fn build(ipv6: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t"),
            "these tests make network namespaces: run them as root"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", std::process::id());
        let mut this = Self {
            inside: format!("mw-p-{id}"),
            outside: format!("mw-c-{id}"),
            servers: Vec::new(),
            binary: Binary::shared(),
        };
        this.cable(ipv6);
        this.serve(
            &this.inside.clone(),
            "80=app 443=app 15001=outbound 15006=inbound 15021=health",
        );
        this.serve(&this.outside.clone(), "80=client 81=client");
        this
    }

    fn cable(&self, ipv6: bool) {
        let Self { inside: pod, outside: client, .. } = self;
        for namespace in [pod, client] {
            ip(&format!("netns add {namespace}"));
            if !ipv6 {
                let file = "/proc/sys/net/ipv6/conf";
                let off = format!(
                    "for f in {file}/all {file}/default {file}/lo; do echo 1 > $f/disable_ipv6; done"
                );
                assert!(enter(namespace).args(["sh", "-c", &off]).status().unwrap().success());
            }
            ip(&format!("-n {namespace} link set lo up"));
        }
        ip(&format!("-n {pod} link add eth0 type veth peer name eth0 netns {client}"));
        for (namespace, number) in [(pod, 1), (client, 2), (client, 3)] {
            ip(&format!("-n {namespace} address add 10.77.0.{number}/24 dev eth0"));
            if ipv6 {
                // Without duplicate address detection the address is there at once.
                ip(&format!("-n {namespace} address add fd77::{number}/64 dev eth0 nodad"));
            }
            ip(&format!("-n {namespace} link set eth0 up"));
        }
    }

    fn serve(&mut self, namespace: &str, listeners: &str) {
        let mut child = self
            .again(enter(namespace), &format!("serve {listeners}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines.map_while(Result::ok).any(|line| line == LISTENING);
        self.servers.push(child);
        assert!(listening, "the listeners in {namespace} did not start");
    }

    /// This test binary again, for the one test that is the program inside.
    fn again(&self, mut command: Command, what: &str) -> Command {
        command.arg(&self.binary.path).args(["--exact", "inside::inside", "--nocapture"]);
        command.env(WHAT, what).stdin(Stdio::null());
        command
    }

    /// Applies the rules in the pod with the real binary.
    pub fn redirect(&self, backend: &str, flags: &[&str]) -> Run {
        let mut command = enter(&self.inside);
        command.args([env!("CARGO_BIN_EXE_meshwright"), "redirect", "--backend", backend]);
        run(command.args(flags))
    }

    pub fn redirect_without_net_admin(&self) -> Run {
        let mut command = enter(&self.inside);
        command.args(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        run(command.args([env!("CARGO_BIN_EXE_meshwright"), "redirect"]))
    }

    /// The rules in the pod, without counters.
    pub fn rules(&self, backend: &str) -> String {
        let list: &[&str] = match backend {
            "nftables" => &["nft", "list", "ruleset"],
            _ => &["sh", "-c", "iptables-save -t nat; ip6tables-save -t nat"],
        };
        let output = enter(&self.inside).args(list).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // Comments hold the time, and lines of chains the counters.
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split(" [").next().unwrap().to_owned() + "\n")
            .collect()
    }

    /// Who answers a connection of user `uid` (and its group) in the pod.
    pub fn connect(&self, uid: u32, to: &str, port: u16) -> String {
        self.connect_as(uid, uid, to, port)
    }

    pub fn connect_as(&self, uid: u32, gid: u32, to: &str, port: u16) -> String {
        reply(self.again(enter_as(&self.inside, uid, gid), &format!("connect - {to} {port}")))
    }

    pub fn connect_bound(&self, uid: u32, source: &str, to: &str, port: u16) -> String {
        reply(
            self.again(enter_as(&self.inside, uid, uid), &format!("connect {source} {to} {port}")),
        )
    }

    /// Who answers a connection from outside the pod.
    pub fn connect_from_client(&self, to: &str, port: u16) -> String {
        reply(self.again(enter(&self.outside), &format!("connect - {to} {port}")))
    }

    /// Connects again and again for some time, meanwhile the caller may do other things.
    pub fn connect_repeatedly(&self, uid: u32, to: &str, port: u16, millis: u32) -> Repeated {
        let mut command =
            self.again(enter_as(&self.inside, uid, uid), &format!("repeat {to} {port} {millis}"));
        Repeated(command.stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
        for namespace in [&self.inside, &self.outside] {
            drop(Command::new("ip").args(["netns", "delete", namespace]).status());
        }
    }
}

/// Connections under way.
pub struct Repeated(Child);

impl Repeated {
    /// What each was told.
    pub fn finish(self) -> Vec<String> {
        replies(&self.0.wait_with_output().unwrap().stdout)
    }
}

fn replies(stdout: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stdout);
    text.lines().filter_map(|line| line.strip_prefix(REPLY)).map(str::to_owned).collect()
}

fn reply(mut command: Command) -> String {
    let output = command.output().unwrap();
    let mut replies = replies(&output.stdout);
    assert_eq!(replies.len(), 1, "{output:?}");
    replies.remove(0)
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        success: output.status.success(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

fn enter(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command
}

fn enter_as(namespace: &str, uid: u32, gid: u32) -> Command {
    let mut command = enter(namespace);
    command.args([format!("--setuid={uid}"), format!("--setgid={gid}")]);
    command
}

/// The binary where every user may execute it: the build directory may be root's alone.
struct Binary {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Binary {
    /// One copy for all pods of this process, gone with the last of them.
    fn shared() -> Arc<Self> {
        static COPY: Mutex<Weak<Binary>> = Mutex::new(Weak::new());
        let mut copy = COPY.lock().unwrap_or_else(PoisonError::into_inner);
        copy.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::copy());
            *copy = Arc::downgrade(&new);
            new
        })
    }

    fn copy() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), everybody).unwrap();
        let path = directory.path().join("inside");
        std::fs::copy(std::env::current_exe().unwrap(), &path).unwrap();
        Self { _directory: directory, path }
    }
}
