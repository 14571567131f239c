//! `manifests/meshwright.yaml` is the chart rendered with its defaults, behind the namespace that it
//! goes to. `MESHWRIGHT_UPDATE=1` rewrites it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const NAMESPACE: &str =
    "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: meshwright-system\n";

fn helm() -> PathBuf {
    let on_path = || {
        let path = env::var_os("PATH")?;
        env::split_paths(&path).map(|folder| folder.join("helm")).find(|file| file.is_file())
    };
    let in_cache = || {
        let tools = PathBuf::from(env::var_os("HOME")?).join(".cache/meshwright/tools");
        let folders = fs::read_dir(tools).ok()?.filter_map(Result::ok);
        folders
            .filter(|folder| folder.file_name().to_string_lossy().starts_with("helm-"))
            .map(|folder| folder.path().join("helm"))
            .find(|file| file.is_file())
    };
    env::var_os("MESHWRIGHT_HELM")
        .map(PathBuf::from)
        .or_else(on_path)
        .or_else(in_cache)
        .expect("helm is missing: put it on the PATH, name it in MESHWRIGHT_HELM, or run `cargo verify`, which installs it")
}

#[test]
fn manifests_are_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(helm())
        .current_dir(root)
        .args(["template", "meshwright", "charts/meshwright"])
        .args(["--namespace", "meshwright-system"])
        .output()
        .expect("helm cannot be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rendered = NAMESPACE.to_owned() + &String::from_utf8(output.stdout).unwrap();
    let path = root.join("manifests/meshwright.yaml");
    if env::var_os("MESHWRIGHT_UPDATE").is_some() {
        fs::write(&path, &rendered).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == rendered,
        "manifests/meshwright.yaml is not what the chart renders: run `MESHWRIGHT_UPDATE=1 cargo test --test manifests_fresh`"
    );
}
