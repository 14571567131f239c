//! The plugin: what the container runtime starts on the node for every pod, by the CNI protocol
//! 0.3.0 to 1.1.0.
//!
//! It changes nothing by itself. It notes the sandbox, asks the daemon to redirect its traffic, and
//! hands on what the plugins before it said. Whatever the daemon does, the pod may start: if it needs
//! redirection, its own init container waits for that.
//!
//! This runs on the node, whose libraries are unknown, and for every pod: standard library and JSON
//! alone, so that the program is small and can be linked statically.

use std::{
    fmt::Display,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::json;

use super::sandbox::{Answer, Notes, SOCKET, Sandbox};

mod protocol;

pub use protocol::{Command, parse};

/// Versions of the protocol whose results can be handed on.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The part of the network configuration that is ours.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The folder that plugin and daemon share.
    pub run_dir: PathBuf,
    /// How long a pod's start waits for the daemon.
    #[serde(default = "default_timeout")]
    pub timeout_millis: u64,
}

/// Redirection takes some 50 ms; a daemon that hangs must not hold up the node.
fn default_timeout() -> u64 {
    5000
}

/// What the runtime gets to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub stdout: String,
    pub success: bool,
}

/// Runs one command of the runtime. `complain` takes what is worth a line in the runtime's log.
pub fn run(
    variable: impl Fn(&str) -> Option<String>,
    stdin: &str,
    complain: impl Fn(&dyn Display),
) -> Reply {
    match parse(variable, stdin) {
        Ok(command) => Reply { stdout: execute(command, complain), success: true },
        Err(failure) => Reply { stdout: failure.json(stdin).to_string(), success: false },
    }
}

/// Nothing that fails here is a reason to fail the runtime's command.
fn execute(command: Command, complain: impl Fn(&dyn Display)) -> String {
    match command {
        Command::Add { config, sandbox, result } => {
            if let Some(sandbox) = sandbox {
                add(&config, &sandbox, complain);
            }
            result.to_string()
        }
        Command::Delete { config, container_id, interface } => {
            let removed = config.map(|c| Notes::of(&c.run_dir).remove(&container_id, &interface));
            if let Some(Err(error)) = removed {
                complain(&format_args!("cannot forget the sandbox {container_id}: {error}"));
            }
            String::new()
        }
        Command::Collect { config, valid } => {
            let is_valid = |sandbox: &Sandbox| {
                valid.iter().any(|(id, interface)| {
                    *id == sandbox.container_id && *interface == sandbox.interface
                })
            };
            if let Err(error) = Notes::of(&config.run_dir).retain(is_valid) {
                complain(&format_args!("cannot forget sandboxes that are gone: {error}"));
            }
            String::new()
        }
        Command::Nothing => String::new(),
        Command::Version { asked } => {
            json!({"cniVersion": asked, "supportedVersions": VERSIONS}).to_string()
        }
    }
}

fn add(config: &Config, sandbox: &Sandbox, complain: impl Fn(&dyn Display)) {
    let Sandbox { namespace, pod, .. } = sandbox;
    if let Err(error) = Notes::of(&config.run_dir).write(sandbox) {
        complain(&format_args!("pod {namespace}/{pod}: cannot note its sandbox: {error}"));
    }
    match ask(config, sandbox) {
        Ok(Answer::Redirected | Answer::NotOurs(_)) => {}
        Ok(Answer::Failed(reason)) | Err(reason) => complain(&format_args!(
            "pod {namespace}/{pod}: not redirected yet, which matters only to a pod with a sidecar, \
             and that waits: {reason}"
        )),
    }
}

/// Asks the daemon, within the time limit. The exchange has a thread of its own because connecting
/// to a socket that nobody accepts from has no time limit.
fn ask(config: &Config, sandbox: &Sandbox) -> Result<Answer, String> {
    let (sender, answers) = mpsc::channel();
    let socket = config.run_dir.join(SOCKET);
    let limit = Duration::from_millis(config.timeout_millis);
    let question = serde_json::to_string(sandbox).map_err(|error| error.to_string())?;
    let file = socket.clone();
    // Nobody listens any more if the answer is late.
    let exchange = move || drop(sender.send(exchange(&file, &question)));
    // Not `thread::spawn`, which panics where a limit forbids one more thread.
    thread::Builder::new().spawn(exchange).map_err(|error| error.to_string())?;
    match answers.recv_timeout(limit) {
        Ok(answer) => answer.map_err(|error| format!("{}: {error}", socket.display())),
        Err(_) => Err(format!("no answer from {} within {limit:?}", socket.display())),
    }
}

fn exchange(socket: &Path, question: &str) -> std::io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests;
