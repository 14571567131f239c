//! A node's folders, and what installing leaves in them.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;

/// As its owner formatted it.
const LIST: &str =
    "{\"name\": \"pods\",\n  \"cniVersion\": \"1.0.0\",\n\t\"plugins\": [ {\"type\": \"ptp\"} ]}";
const SINGLE: &str = "{ \"type\":\"bridge\", \"name\":\"pods\", \"cniVersion\":\"0.4.0\" }";

struct Host {
    root: tempfile::TempDir,
    installer: Installer,
}

impl Host {
    fn with(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("plugin");
        fs::write(&program, "program 1").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let installer = Installer {
            bin_dir: root.path().join("bin"),
            conf_dir: root.path().join("net.d"),
            program,
            entry: json!({"type": PLUGIN, "runDir": "/run/meshwright-cni"}),
        };
        fs::create_dir_all(&installer.conf_dir).unwrap();
        let host = Self { root, installer };
        for (name, text) in files {
            host.write(name, text);
        }
        host
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.installer.conf_dir.join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.installer.conf_dir.join(name)).unwrap()
    }

    fn types(&self, name: &str) -> Vec<String> {
        let list: Value = serde_json::from_str(&self.read(name)).unwrap();
        let plugins = list["plugins"].as_array().unwrap();
        plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    fn files(&self) -> Vec<String> {
        self.installer.files().unwrap()
    }

    fn ensure(&self) -> State {
        self.installer.ensure().unwrap()
    }

    fn added(&self, name: &str) -> State {
        State::Added(self.installer.conf_dir.join(name))
    }
}

#[test]
fn a_list_gets_the_entry_and_is_put_back_to_the_byte() {
    let host = Host::with(&[("10-pods.conflist", LIST)]);
    let path = host.installer.conf_dir.join("10-pods.conflist");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(host.ensure(), host.added("10-pods.conflist"));
    assert_eq!(host.types("10-pods.conflist"), ["ptp", PLUGIN]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(host.ensure(), State::Installed);
    let program = host.installer.bin_dir.join(PLUGIN);
    assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);

    host.installer.remove_entry().unwrap();
    host.installer.remove_program().unwrap();
    host.installer.remove_program().unwrap();
    assert_eq!(host.read("10-pods.conflist"), LIST);
    assert_eq!(host.files(), ["10-pods.conflist"]);
    assert!(!program.exists());
}

#[test]
fn a_single_plugin_becomes_a_list_and_a_single_plugin_again() {
    let host = Host::with(&[("10-pods.conf", SINGLE), ("20-later.conflist", LIST)]);
    assert_eq!(host.ensure(), host.added("10-pods.conf.conflist"));
    assert_eq!(host.types("10-pods.conf.conflist"), ["bridge", PLUGIN]);
    assert_eq!(
        host.files(),
        ["10-pods.conf.before-meshwright", "10-pods.conf.conflist", "20-later.conflist"]
    );
    assert_eq!(host.ensure(), State::Installed);
    host.installer.remove_entry().unwrap();
    assert_eq!(host.files(), ["10-pods.conf", "20-later.conflist"]);
    assert_eq!(host.read("10-pods.conf"), SINGLE);
}

#[test]
fn the_network_may_come_later_write_its_file_again_and_add_another() {
    let host = Host::with(&[]);
    assert!(matches!(host.ensure(), State::Waiting(_)));
    host.write("10-pods.conflist", LIST);
    assert_eq!(host.ensure(), host.added("10-pods.conflist"));
    let rewritten = LIST.replace("ptp", "bridge");
    host.write("10-pods.conflist", &rewritten);
    assert_eq!(host.ensure(), host.added("10-pods.conflist"));
    assert_eq!(host.types("10-pods.conflist"), ["bridge", PLUGIN]);
    host.write("05-first.conf", SINGLE);
    assert_eq!(host.ensure(), host.added("05-first.conf.conflist"));
    // It writes its own again, which runtimes prefer to ours.
    host.write("05-first.conf", &SINGLE.replace("bridge", "macvlan"));
    assert_eq!(host.ensure(), host.added("05-first.conf.conflist"));
    assert_eq!(host.types("05-first.conf.conflist"), ["macvlan", PLUGIN]);
    host.installer.remove_entry().unwrap();
    assert_eq!(host.files(), ["05-first.conf", "10-pods.conflist"]);
    assert_eq!(host.read("10-pods.conflist"), rewritten);
}

#[test]
fn what_others_added_meanwhile_stays() {
    let host = Host::with(&[("10-pods.conflist", LIST)]);
    host.ensure();
    let mut list: Value = serde_json::from_str(&host.read("10-pods.conflist")).unwrap();
    list["plugins"].as_array_mut().unwrap().push(json!({"type": "bandwidth"}));
    host.write("10-pods.conflist", &list.to_string());
    assert_eq!(host.ensure(), State::Installed);
    host.installer.remove_entry().unwrap();
    assert_eq!(host.types("10-pods.conflist"), ["ptp", "bandwidth"]);
    assert_eq!(host.files(), ["10-pods.conflist"]);
}

#[test]
fn an_upgrade_brings_program_and_entry_up_to_date() {
    let mut host = Host::with(&[("10-pods.conflist", LIST)]);
    host.ensure();
    fs::write(&host.installer.program, "program 2").unwrap();
    host.installer.entry = json!({"type": PLUGIN, "runDir": "/run/elsewhere"});
    host.installer.copy_program().unwrap();
    assert_eq!(host.ensure(), host.added("10-pods.conflist"));
    assert_eq!(fs::read(host.installer.bin_dir.join(PLUGIN)).unwrap(), b"program 2");
    host.installer.remove_entry().unwrap();
    assert_eq!(host.read("10-pods.conflist"), LIST, "what was before the first installation");
}

#[test]
fn what_is_not_understood_is_left_as_it_is() {
    for text in ["{\"plugins\": [", "", "[]", r#"{"cniVersion":"1.0.0","plugins":[]}"#] {
        let host = Host::with(&[("10-pods.conflist", text)]);
        assert!(matches!(host.ensure(), State::Waiting(_)), "{text}");
        host.installer.remove_entry().unwrap();
        assert_eq!(host.read("10-pods.conflist"), text);
        assert_eq!(host.files(), ["10-pods.conflist"]);
    }
}

#[test]
fn a_program_that_somebody_removed_comes_back() {
    let host = Host::with(&[("10-pods.conflist", LIST)]);
    host.ensure();
    host.installer.remove_program().unwrap();
    assert_eq!(host.ensure(), State::Installed);
    assert!(host.installer.bin_dir.join(PLUGIN).is_file());
}

#[test]
fn failures_name_the_file() {
    let mut host = Host::with(&[]);
    host.installer.program = host.root.path().join("missing");
    let error = host.installer.ensure().unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("/missing: "), "{error}");
}
