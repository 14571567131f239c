//! The plugin as the container runtime sees it.

use std::{cell::RefCell, collections::BTreeMap, os::unix::net::UnixListener};

use serde_json::Value;

use super::*;

/// What the runtime hands to the plugin on standard input.
fn network_config(run_dir: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "meshwright-cni",
        "runDir": run_dir, "timeoutMillis": 200,
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.5/24"}]},
    })
}

/// Variables of a command for a pod.
fn variables(command: &str) -> BTreeMap<&'static str, String> {
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=u1";
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "4f2a"),
        ("CNI_NETNS", "/run/netns/cni-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
        ("CNI_ARGS", args),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into()
}

/// Runs the plugin; gives its reply and its complaints.
fn call(variables: &BTreeMap<&str, String>, stdin: &str) -> (Reply, Vec<String>) {
    let complaints = RefCell::new(Vec::new());
    let reply = run(
        |name| variables.get(name).cloned(),
        stdin,
        |complaint| complaints.borrow_mut().push(complaint.to_string()),
    );
    (reply, complaints.into_inner())
}

#[test]
fn a_pod_starts_without_the_daemon_and_is_noted() {
    let folder = tempfile::tempdir().unwrap();
    let config = network_config(folder.path());
    let (reply, complaints) = call(&variables("ADD"), &config.to_string());
    assert!(reply.success);
    assert_eq!(serde_json::from_str::<Value>(&reply.stdout).unwrap(), config["prevResult"]);
    assert!(complaints[0].starts_with("pod shop/cart-0: not redirected yet"), "{complaints:?}");
    let noted = Notes::of(folder.path()).all();
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].netns, "/run/netns/cni-1");
    assert!(noted[0].belongs_to("shop", "cart-0", "u1"));

    let (reply, complaints) = call(&variables("DEL"), &config.to_string());
    assert_eq!(reply, Reply { stdout: String::new(), success: true });
    assert_eq!(complaints, [""; 0]);
    assert_eq!(Notes::of(folder.path()).all(), []);
}

#[test]
fn a_daemon_that_hangs_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let _deaf = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
    let config = network_config(folder.path());
    let (reply, complaints) = call(&variables("ADD"), &config.to_string());
    assert!(reply.success);
    assert!(complaints[0].contains("within 200ms"), "{complaints:?}");
}

#[test]
fn the_daemon_is_asked_and_its_answer_changes_nothing_for_the_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let config = network_config(folder.path());
    let listener = UnixListener::bind(folder.path().join(SOCKET)).unwrap();
    let answers =
        [Answer::Redirected, Answer::NotOurs("no sidecar".into()), Answer::Failed("no nft".into())];
    for (answer, quiet) in answers.into_iter().zip([true, true, false]) {
        let daemon = std::thread::spawn({
            let listener = listener.try_clone().unwrap();
            move || {
                let (stream, _) = listener.accept().unwrap();
                let mut question = String::new();
                BufReader::new(&stream).read_line(&mut question).unwrap();
                (&stream).write_all(&serde_json::to_vec(&answer).unwrap()).unwrap();
                serde_json::from_str::<Sandbox>(&question).unwrap()
            }
        });
        let (reply, complaints) = call(&variables("ADD"), &config.to_string());
        assert!(reply.success);
        assert_eq!(complaints.is_empty(), quiet, "{complaints:?}");
        assert_eq!(daemon.join().unwrap().container_id, "4f2a");
    }
}

#[test]
fn sandboxes_that_are_no_pods_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut variables = variables("ADD");
    variables.insert("CNI_ARGS", "IgnoreUnknown=1".to_owned());
    let (reply, complaints) = call(&variables, &network_config(folder.path()).to_string());
    assert!(reply.success && complaints.is_empty());
    assert_eq!(Notes::of(folder.path()).all(), []);
}

#[test]
fn errors_are_those_of_the_specification() {
    let good = network_config(Path::new("/nowhere"));
    let without = |field: &str| {
        let mut config = good.clone();
        config.as_object_mut().unwrap().remove(field);
        config.to_string()
    };
    let unset = |name: &str| {
        let mut variables = variables("ADD");
        variables.remove(name);
        variables
    };
    let ifname = |name: &str| {
        let mut variables = variables("ADD");
        variables.insert("CNI_IFNAME", name.to_owned());
        variables
    };
    let text = good.to_string();
    for (variables, stdin, code, message) in [
        (unset("CNI_COMMAND"), &text, 4, "the variable CNI_COMMAND is missing"),
        (unset("CNI_CONTAINERID"), &text, 4, "the variable CNI_CONTAINERID is missing"),
        (unset("CNI_NETNS"), &text, 4, "the variable CNI_NETNS is missing"),
        (unset("CNI_IFNAME"), &text, 4, "the variable CNI_IFNAME is missing"),
        (
            ifname("../x"),
            &text,
            4,
            "CNI_IFNAME is \"../x\", which the specification does not allow",
        ),
        (variables("FLY"), &text, 4, "CNI_COMMAND is \"FLY\", which is no command of CNI 1.1"),
        (variables("ADD"), &"{".to_owned(), 6, "the network configuration on standard input"),
        (variables("ADD"), &without("cniVersion"), 1, "version 0.2.0 has no chained plugins"),
        (variables("ADD"), &without("prevResult"), 7, "prevResult is missing"),
        (variables("ADD"), &without("runDir"), 7, "our part of it: missing field `runDir`"),
    ] {
        let (reply, _) = call(&variables, stdin);
        assert!(!reply.success);
        let error: Value = serde_json::from_str(&reply.stdout).unwrap();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["msg"].as_str().unwrap().starts_with(message), "{error}");
        assert!(error["cniVersion"].is_string());
    }
}

#[test]
fn a_sandbox_ends_even_if_the_configuration_makes_no_sense() {
    let (reply, _) = call(&variables("DEL"), r#"{"cniVersion":"0.1.0","type":"meshwright-cni"}"#);
    assert_eq!(reply, Reply { stdout: String::new(), success: true });
}

#[test]
fn versions_are_told_in_the_version_that_was_asked_in() {
    let (reply, _) = call(&variables("VERSION"), r#"{"cniVersion":"0.4.0"}"#);
    assert_eq!(
        serde_json::from_str::<Value>(&reply.stdout).unwrap(),
        json!({"cniVersion": "0.4.0", "supportedVersions": VERSIONS})
    );
}

#[test]
fn a_protocol_of_tomorrow_is_handed_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = network_config(folder.path());
    config["cniVersion"] = json!("2.0.0");
    config["prevResult"] = json!({"cniVersion": "2.0.0", "links": {"eth0": {"up": true}}});
    let (reply, _) = call(&variables("ADD"), &config.to_string());
    assert!(reply.success);
    assert_eq!(serde_json::from_str::<Value>(&reply.stdout).unwrap(), config["prevResult"]);
}

#[test]
fn check_and_status_have_nothing_to_say() {
    for command in ["CHECK", "STATUS"] {
        let (reply, _) = call(&variables(command), &network_config(Path::new("/x")).to_string());
        assert_eq!(reply, Reply { stdout: String::new(), success: true }, "{command}");
    }
}

#[test]
fn what_the_runtime_does_not_know_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = network_config(folder.path());
    for id in ["kept", "gone"] {
        let mut variables = variables("ADD");
        variables.insert("CNI_CONTAINERID", id.to_owned());
        call(&variables, &config.to_string());
    }
    config["cni.dev/valid-attachments"] = json!([{"containerID": "kept", "ifname": "eth0"}]);
    let (reply, _) = call(&variables("GC"), &config.to_string());
    assert!(reply.success);
    let left: Vec<String> =
        Notes::of(folder.path()).all().into_iter().map(|sandbox| sandbox.container_id).collect();
    assert_eq!(left, ["kept"]);
}
