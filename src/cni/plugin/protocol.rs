//! The CNI protocol: variables and standard input become a command, or an error with the code that
//! the specification gives it. Pure.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Config, Sandbox, VERSIONS};

/// Error codes of the CNI specification.
pub mod code {
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    pub const INVALID_ENVIRONMENT: u32 = 4;
    pub const UNREADABLE_INPUT: u32 = 6;
    pub const INVALID_CONFIG: u32 = 7;
}

/// What the runtime wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A sandbox has a network. `sandbox` is nothing for one that is not a pod's.
    Add {
        config: Config,
        sandbox: Option<Sandbox>,
        result: Value,
    },
    /// A sandbox ends. It must do so even if the configuration makes no sense any more.
    Delete {
        config: Option<Config>,
        container_id: String,
        interface: String,
    },
    /// All sandboxes but these are gone.
    Collect {
        config: Config,
        valid: Vec<(String, String)>,
    },
    /// What the plugin has nothing to say to: CHECK and STATUS.
    Nothing,
    Version {
        asked: String,
    },
}

/// Why the plugin refuses, in the terms of the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: u32,
    pub message: String,
}

impl Failure {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// As the runtime reads it.
    pub fn json(&self, stdin: &str) -> Value {
        let version = serde_json::from_str(stdin).map_or_else(|_| newest(), |v| version_of(&v));
        json!({"cniVersion": version, "code": self.code, "msg": self.message})
    }
}

/// An attachment in the runtime's list of those that exist.
#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Reads a command from the variables and the standard input.
pub fn parse(variable: impl Fn(&str) -> Option<String>, stdin: &str) -> Result<Command, Failure> {
    let command = required(&variable, "CNI_COMMAND")?;
    let input: Value = serde_json::from_str(stdin).map_err(|error| {
        let reason = format!("the network configuration on standard input is no JSON: {error}");
        Failure::new(code::UNREADABLE_INPUT, reason)
    })?;
    match command.as_str() {
        "ADD" => {
            let result = previous_result(&input)?;
            let (container_id, interface) = attachment(&variable)?;
            let netns = required(&variable, "CNI_NETNS")?;
            let sandbox = pod(&variable).map(|(namespace, pod, uid)| Sandbox {
                container_id,
                interface,
                netns,
                namespace,
                pod,
                uid,
            });
            Ok(Command::Add { config: config(&input)?, sandbox, result })
        }
        "DEL" => {
            let (container_id, interface) = attachment(&variable)?;
            Ok(Command::Delete { config: config(&input).ok(), container_id, interface })
        }
        "GC" => Ok(Command::Collect { config: config(&input)?, valid: valid(&input)? }),
        "CHECK" | "STATUS" => Ok(Command::Nothing),
        "VERSION" => Ok(Command::Version { asked: version_of(&input) }),
        other => {
            let reason = format!("CNI_COMMAND is {other:?}, which is no command of CNI 1.1");
            Err(Failure::new(code::INVALID_ENVIRONMENT, reason))
        }
    }
}

/// What the plugins before this one made. Results of unknown versions are handed on like any other:
/// the network's plugins may be newer than this one, and pods must start.
fn previous_result(input: &Value) -> Result<Value, Failure> {
    let version = version_of(input);
    if version.starts_with("0.1.") || version.starts_with("0.2.") {
        let reason = format!("version {version} has no chained plugins; it must be 0.3.0 or newer");
        return Err(Failure::new(code::INCOMPATIBLE_VERSION, reason));
    }
    input.get("prevResult").filter(|result| result.is_object()).cloned().ok_or_else(|| {
        let reason = "prevResult is missing: this plugin makes no network, so it cannot be the \
                      first of the list";
        Failure::new(code::INVALID_CONFIG, reason)
    })
}

fn config(input: &Value) -> Result<Config, Failure> {
    Config::deserialize(input)
        .map_err(|error| Failure::new(code::INVALID_CONFIG, format!("our part of it: {error}")))
}

fn valid(input: &Value) -> Result<Vec<(String, String)>, Failure> {
    let list = input.get("cni.dev/valid-attachments").cloned().unwrap_or_else(|| json!([]));
    let list: Vec<Attachment> = serde_json::from_value(list).map_err(|error| {
        Failure::new(code::INVALID_CONFIG, format!("cni.dev/valid-attachments: {error}"))
    })?;
    Ok(list.into_iter().map(|attachment| (attachment.container_id, attachment.ifname)).collect())
}

/// The two names of an attachment, which become part of a file's name.
fn attachment(variable: &impl Fn(&str) -> Option<String>) -> Result<(String, String), Failure> {
    let names = [required(variable, "CNI_CONTAINERID")?, required(variable, "CNI_IFNAME")?];
    for (name, value) in ["CNI_CONTAINERID", "CNI_IFNAME"].iter().zip(&names) {
        if value.starts_with('.') || value.contains(['/', '\0']) || value.len() > 200 {
            let reason = format!("{name} is {value:?}, which the specification does not allow");
            return Err(Failure::new(code::INVALID_ENVIRONMENT, reason));
        }
    }
    let [container_id, interface] = names;
    Ok((container_id, interface))
}

fn required(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Result<String, Failure> {
    variable(name).filter(|value| !value.is_empty()).ok_or_else(|| {
        Failure::new(code::INVALID_ENVIRONMENT, format!("the variable {name} is missing"))
    })
}

/// Namespace, name and uid from `CNI_ARGS`: `IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;…`.
fn pod(variable: &impl Fn(&str) -> Option<String>) -> Option<(String, String, String)> {
    let args = variable("CNI_ARGS")?;
    let get = |name: &str| {
        let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let uid = get("K8S_POD_UID").unwrap_or_default();
    Some((get("K8S_POD_NAMESPACE")?, get("K8S_POD_NAME")?, uid))
}

fn version_of(input: &Value) -> String {
    // What a configuration without a version is in, by the specification.
    input.get("cniVersion").and_then(Value::as_str).unwrap_or("0.2.0").to_owned()
}

fn newest() -> String {
    VERSIONS[VERSIONS.len() - 1].to_owned()
}
