//! A pod and a client, each in a network namespace of its own, joined by two cables; and, where a test
//! asks for it, a virtual machine behind the pod.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use crate::{
    binaries::Binaries,
    inside::{LISTENING, REPLY, WHAT},
    wiring::{self, enter, enter_as},
};

/// The proxy's user; its connections are its own.
pub const PROXY: u32 = 1337;
/// Some application's user.
pub const APP: u32 = 1000;

/// The addresses of one family.
pub struct Addresses {
    pub pod: &'static str,
    pub client: &'static str,
    /// Another address of the client.
    pub other: &'static str,
    /// The pod and the client on the second cable, `net1`.
    pub second: [&'static str; 2],
    pub loopback: &'static str,
    pub passthrough: &'static str,
    /// Of documentation; nobody's.
    pub nobody: &'static str,
}

pub const V4: Addresses = Addresses {
    pod: "10.77.0.1",
    client: "10.77.0.2",
    other: "10.77.0.3",
    second: ["10.78.0.1", "10.78.0.2"],
    loopback: "127.0.0.1",
    passthrough: "127.0.0.6",
    nobody: "192.0.2.1",
};

pub const V6: Addresses = Addresses {
    pod: "fd77::1",
    client: "fd77::2",
    other: "fd77::3",
    second: ["fd78::1", "fd78::2"],
    loopback: "::1",
    passthrough: "::6",
    nobody: "2001:db8::1",
};

/// How a run of the binary ended.
pub struct Run {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// What it logged.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert!(self.success, "{}", self.stderr);
        self.stderr
    }

    /// What it complained about.
    #[track_caller]
    pub fn expect_failure(self) -> String {
        assert!(!self.success, "{}", self.stderr);
        self.stderr
    }
}

/// What listens in a pod, and what else there is.
#[derive(Clone, Copy)]
pub struct Kind {
    pub ipv6: bool,
    pub listeners: &'static str,
    /// Whether a proxy with transparent sockets takes inbound connections.
    pub transparent: bool,
}

/// An application and a proxy.
pub const MESHED: Kind = Kind {
    ipv6: true,
    listeners: "80=app 443=app 15001=outbound 15006=inbound 15021=health",
    transparent: false,
};
/// No proxy yet.
pub const BARE: Kind = Kind { listeners: "80=app", ..MESHED };
/// A proxy with transparent sockets.
pub const TRANSPARENT: Kind =
    Kind { listeners: "80=app 443=app 15001=outbound 15021=health", transparent: true, ..MESHED };
/// The agent's DNS, which runs as the proxy's user.
const AGENT: &str = "127.0.0.1@15053=agent 127.0.0.1@15053/udp=agent ::1@15053=agent \
                     ::1@15053/udp=agent";
const DNS_SERVERS: &str = "10.77.0.2@53/udp=server 10.77.0.3@53/udp=server fd77::2@53/udp=server \
                           fd77::3@53/udp=server 53=server";

/// Namespaces with listeners in them, all gone when dropped.
pub struct Pod {
    pub inside: String,
    outside: String,
    machine: Option<String>,
    servers: Vec<Child>,
    binaries: Arc<Binaries>,
}

impl Pod {
    pub fn new(kind: Kind) -> Self {
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
            machine: None,
            servers: Vec::new(),
            binaries: Binaries::shared(),
        };
        wiring::cables(&this.inside, &this.outside, kind.ipv6);
        let (inside, outside) = (this.inside.clone(), this.outside.clone());
        this.serve(enter(&inside), &format!("serve {}", kind.listeners));
        if kind.transparent {
            this.serve(enter_as(&inside, 0, PROXY), "transparent 15006");
        }
        this.serve(enter(&outside), "serve 80=client 81=client");
        this
    }

    /// DNS servers at the client, and the agent's DNS in the pod.
    pub fn with_dns(mut self) -> Self {
        let (inside, outside) = (self.inside.clone(), self.outside.clone());
        self.serve(enter_as(&inside, PROXY, PROXY), &format!("serve {AGENT}"));
        self.serve(enter(&outside), &format!("serve {DNS_SERVERS}"));
        self
    }

    /// A virtual machine behind the pod's interface `tap0`, which forwards for it.
    pub fn with_machine(mut self) -> Self {
        let machine = self.inside.replace("mw-p", "mw-m");
        let pod = self.inside.clone();
        wiring::machine(&machine, &pod, &self.outside);
        self.machine = Some(machine);
        self
    }

    fn serve(&mut self, command: Command, what: &str) {
        let mut child = self.again(command, what).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = lines.map_while(Result::ok).any(|line| line == LISTENING);
        self.servers.push(child);
        assert!(listening, "the listeners of {what} did not start");
    }

    /// This test binary again, for the one test that is the program inside.
    fn again(&self, mut command: Command, what: &str) -> Command {
        command.arg(self.binaries.path("inside"));
        command.args(["--exact", "inside::inside", "--nocapture"]);
        command.env(WHAT, what).stdin(Stdio::null());
        command
    }

    /// Runs the real binary's role in the pod.
    pub fn run(&self, flags: &[&str]) -> Run {
        let mut command = enter(&self.inside);
        command.args([env!("CARGO_BIN_EXE_meshwright"), "redirect"]);
        run(command.args(flags))
    }

    /// Applies the rules in the pod.
    pub fn redirect(&self, backend: &str, flags: &[&str]) -> Run {
        let mut command = enter(&self.inside);
        command.args([env!("CARGO_BIN_EXE_meshwright"), "redirect"]);
        if ["legacy", "half"].contains(&backend) {
            // As in an image that has no other iptables.
            command.env("PATH", self.binaries.path(backend));
            command.args(["--backend", "iptables"]);
        } else {
            command.args(["--backend", backend]);
        }
        run(command.args(flags))
    }

    /// The same as some user without any capability, still running.
    pub fn start_as(&self, uid: u32, flags: &[&str]) -> Child {
        let mut command = enter_as(&self.inside, uid, uid);
        command.arg(self.binaries.path("meshwright")).arg("redirect").args(flags);
        command.stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn redirect_without_net_admin(&self) -> Run {
        let mut command = enter(&self.inside);
        command.args(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        run(command.args([env!("CARGO_BIN_EXE_meshwright"), "redirect"]))
    }

    /// Runs a shell command in the pod, and returns what it prints.
    #[track_caller]
    pub fn shell(&self, command: &str) -> String {
        let done = run(enter(&self.inside).args(["timeout", "20", "sh", "-ec", command]));
        assert!(done.success, "{command}: {}", done.stderr);
        done.stdout
    }

    /// The rules in the pod of all tools, without counters and comments.
    pub fn rules(&self) -> String {
        let text = self.shell(
            "nft list tables | sort; for f in ip ip6; do \
             nft -s list table $f meshwright 2>/dev/null || true; \
             ${f}tables-nft-save; ${f}tables-legacy-save; done; ip rule; ip -6 rule; \
             ip route show table 133 2>/dev/null || true; \
             ip -6 route show table 133 2>/dev/null || true",
        );
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
        first_word(&self.reply(enter_as(&self.inside, uid, gid), &format!("tcp - {to} {port}")))
    }

    pub fn connect_bound(&self, uid: u32, source: &str, to: &str, port: u16) -> String {
        let what = format!("tcp {source} {to} {port}");
        first_word(&self.reply(enter_as(&self.inside, uid, uid), &what))
    }

    /// Who answers, and what it takes for the client's address.
    pub fn seen_from_inside(&self, uid: u32, to: &str, port: u16) -> String {
        self.reply(enter_as(&self.inside, uid, uid), &format!("tcp - {to} {port}"))
    }

    pub fn seen_from_client(&self, source: &str, to: &str, port: u16) -> String {
        self.reply(enter(&self.outside), &format!("tcp {source} {to} {port}"))
    }

    /// Who answers a connection from outside the pod.
    pub fn connect_from_client(&self, to: &str, port: u16) -> String {
        first_word(&self.reply(enter(&self.outside), &format!("tcp - {to} {port}")))
    }

    /// The same where nobody is expected to answer.
    pub fn connect_impatiently(&self, to: &str, port: u16) -> String {
        self.reply(enter(&self.outside), &format!("hasty-tcp - {to} {port}"))
    }

    pub fn connect_from_machine(&self, to: &str, port: u16) -> String {
        let machine = self.machine.as_ref().expect("a pod with a machine");
        first_word(&self.reply(enter(machine), &format!("tcp - {to} {port}")))
    }

    /// Who answers a packet of user `uid` to port 53.
    pub fn ask(&self, uid: u32, to: &str) -> String {
        self.ask_from(uid, 0, to)
    }

    pub fn ask_from(&self, uid: u32, source_port: u16, to: &str) -> String {
        let what = format!("udp {source_port} {to} 53");
        first_word(&self.reply(enter_as(&self.inside, uid, uid), &what))
    }

    /// What the pod does about a packet that belongs to no connection.
    pub fn send_broken(&self, source: &str, to: &str, port: u16) -> String {
        self.reply(enter(&self.outside), &format!("broken {source} {to} {port}"))
    }

    fn reply(&self, command: Command, what: &str) -> String {
        let output = self.again(command, what).output().unwrap();
        let mut replies = replies(&output.stdout);
        assert_eq!(replies.len(), 1, "{output:?}");
        replies.remove(0)
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
        for namespace in [&self.inside, &self.outside].into_iter().chain(&self.machine) {
            drop(Command::new("ip").args(["netns", "delete", namespace]).status());
        }
    }
}

/// Connections under way.
pub struct Repeated(Child);

impl Repeated {
    /// What each was told.
    pub fn finish(self) -> Vec<String> {
        let replies = replies(&self.0.wait_with_output().unwrap().stdout);
        replies.iter().map(|reply| first_word(reply)).collect()
    }
}

fn first_word(reply: &str) -> String {
    if reply.starts_with("error") {
        return reply.to_owned();
    }
    reply.split(' ').next().unwrap().to_owned()
}

fn replies(stdout: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(stdout);
    text.lines().filter_map(|line| line.strip_prefix(REPLY)).map(str::to_owned).collect()
}

fn run(command: &mut Command) -> Run {
    let output = command.output().unwrap();
    Run {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
