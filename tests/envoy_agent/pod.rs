//! The agent as a container would run it, in a network namespace of the test's own.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use meshwright::agent::Settings;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};

use crate::control_plane::{HOST, PORT};

/// Set in the process that is inside the namespace.
const INSIDE: &str = "MESHWRIGHT_AGENT_TEST_INSIDE";

/// Where the stock Envoy is.
pub fn envoy() -> PathBuf {
    let path = std::env::var_os("MESHWRIGHT_ENVOY").map(PathBuf::from);
    let path = path.filter(|path| path.is_file());
    path.expect("set MESHWRIGHT_ENVOY to the path of a stock Envoy: this test runs it")
}

/// Runs `scenario` in a network namespace of its own: this binary again, for the one test `name`.
pub fn in_own_namespace<F: Future<Output = ()>>(name: &str, scenario: impl FnOnce() -> F) {
    let envoy = envoy();
    if std::env::var_os(INSIDE).is_some() {
        meshwright::runtime::install_crypto_provider();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(scenario());
    }
    assert!(
        std::fs::read_to_string("/proc/self/status").unwrap().contains("\nUid:\t0\t0\t"),
        "this test makes a network namespace: run it as root"
    );
    let output = Command::new("unshare")
        .args(["--net", "sh", "-c", r#"ip link set lo up && exec "$@""#, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "yes")
        .env("MESHWRIGHT_ENVOY", envoy)
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn environment(directory: &Path, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    let run_dir = directory.display().to_string();
    let discovery = format!("{HOST}:{PORT}");
    let mut all: Vec<(String, String)> = [
        ("POD_NAME", "cart-1"),
        ("POD_NAMESPACE", "shop"),
        ("POD_IP", "127.0.0.1"),
        ("SERVICE_ACCOUNT", "cart"),
        ("MESHWRIGHT_DISCOVERY_ADDRESS", &*discovery),
        ("MESHWRIGHT_RUN_DIR", &*run_dir),
        ("MESHWRIGHT_IDENTITY_DIR", &*run_dir),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    for (name, value) in changes {
        all.retain(|(known, _)| known != name);
        all.push(((*name).to_owned(), (*value).to_owned()));
    }
    all
}

pub fn settings(directory: &Path, changes: &[(&str, &str)]) -> Settings {
    let all = environment(directory, changes);
    let get = |name: &str| all.iter().find(|(known, _)| known == name).map(|(_, v)| v.clone());
    Settings::from_env(get).unwrap()
}

/// The roots of the control plane that runs, for pods that start after it.
static ROOTS: Mutex<String> = Mutex::new(String::new());

pub fn set_roots(pem: &str) {
    pem.clone_into(&mut ROOTS.lock().unwrap());
}

/// A running agent. Its files go with it.
pub struct Pod {
    child: Child,
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

fn agent(directory: &Path, environment: &[(String, String)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(directory.join("log"));
    Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .arg("agent")
        .envs(environment.iter().cloned())
        .stdout(Stdio::null())
        .stderr(log.unwrap())
        .spawn()
        .unwrap()
}

impl Pod {
    pub fn start(changes: &[(&str, &str)]) -> Self {
        let roots = ROOTS.lock().unwrap().clone();
        Self::with_roots(changes, &roots)
    }

    pub fn with_roots(changes: &[(&str, &str)], roots: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        std::fs::write(path.join("root-cert.pem"), roots).unwrap();
        std::fs::write(path.join("token"), "the token\n").unwrap();
        let environment = environment(path, changes);
        let child = agent(path, &environment);
        Self { child, directory, environment }
    }

    /// Returns when the agent says that it is ready, asked as the hook does.
    pub async fn wait(&self, limit: Duration) {
        let (ready, said) = self.ask(limit).await;
        assert!(ready, "{said}\n{}", self.log());
    }

    /// Whether the agent is ready within the limit, and what the hook says.
    pub async fn ask(&self, limit: Duration) -> (bool, String) {
        let limit = limit.as_secs().to_string();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_meshwright"))
            .args(["agent", "--wait", "--timeout", &limit])
            .output()
            .await
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Kills the agent, and it alone, when `moment` has come.
    pub async fn kill_when(&mut self, moment: impl AsyncFn(&Path) -> bool) {
        while !moment(self.directory.path()).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the agent in the same place, and again if it fails, as the kubelet does. Returns when
    /// it is ready.
    pub async fn restart(&mut self, limit: Duration) {
        let end = Instant::now() + limit;
        self.child = agent(self.directory.path(), &self.environment);
        while !self.ask(Duration::from_secs(1)).await.0 {
            assert!(Instant::now() < end, "not ready again:\n{}", self.log());
            if self.child.try_wait().unwrap().is_some() {
                self.child = agent(self.directory.path(), &self.environment);
            }
        }
    }

    /// The Envoys that run with this pod's bootstrap, by their process. One that has ended and that
    /// nobody waited for has no arguments any more.
    pub fn envoys(&self) -> Vec<PathBuf> {
        let bootstrap = self.directory.path().join("envoy.json").display().to_string();
        let processes = std::fs::read_dir("/proc").unwrap();
        processes
            .map(|process| process.unwrap().path())
            .filter(|process| {
                let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&bootstrap)
            })
            .collect()
    }

    /// Status and body of an answer.
    pub async fn get(&self, port: u16, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect((HOST, port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn terminate(&self) {
        signal("-TERM", self.pid());
    }

    pub fn kill_envoy(&self) {
        let pid = self.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children).unwrap();
        let [envoy] = children.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("one child: {children}")
        };
        signal("-KILL", envoy.parse().unwrap());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The agent's memory in kB: all that is resident, and its part that is not the binary's code,
    /// which does not depend on how the binary was built.
    pub fn memory(&self) -> (u32, u32) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let figure = |name| -> u32 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (figure("VmRSS:"), figure("RssAnon:"))
    }

    /// Whether the agent ended well, and what it said.
    pub async fn exited(&mut self, limit: Duration) -> (bool, String) {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.success(), self.log());
            }
            assert!(Instant::now() < end, "the agent did not end:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Asked nicely, so that Envoy ends too.
            signal("-TERM", self.pid());
            signal("-TERM", self.pid());
            drop(self.child.wait());
        }
    }
}

fn signal(kind: &str, pid: u32) {
    drop(Command::new("kill").args([kind, &pid.to_string()]).status());
}

/// An application with a probe's path and metrics.
pub async fn application(port: u16) {
    let app = axum::Router::new()
        .route("/up", axum::routing::get(|| async { "up" }))
        .route("/metrics", axum::routing::get(|| async { "app_requests_total 1" }));
    let listener = TcpListener::bind((HOST, port)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// An application whose preStop handler says that it began, and ends when it is told.
pub async fn application_with_hook(port: u16) -> (mpsc::Receiver<()>, Arc<Notify>) {
    let (begun, receiver) = mpsc::channel(1);
    let end = Arc::new(Notify::new());
    let told = Arc::clone(&end);
    let stop = move || async move {
        begun.send(()).await.unwrap();
        told.notified().await;
        "stopped"
    };
    let app = axum::Router::new().route("/stop", axum::routing::get(stop));
    let listener = TcpListener::bind((HOST, port)).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    (receiver, end)
}
