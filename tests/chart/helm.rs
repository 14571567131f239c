//! Helm, and the chart's golden cases.

use std::{
    collections::BTreeMap,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// A file of this checkout.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[allow(dead_code, reason = "not every test that has this module runs helm")]
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

/// The chart rendered with these flags of helm and the values on standard input; or what helm says
/// against it.
#[allow(dead_code, reason = "as above")]
pub fn render(flags: &[&str], values: &str) -> Result<String, String> {
    let mut helm = Command::new(helm())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["template", "meshwright", "charts/meshwright"])
        .args(["--namespace", "meshwright-system", "--values", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helm cannot be run");
    helm.stdin.take().unwrap().write_all(values.as_bytes()).unwrap();
    let output = helm.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// YAML as JSON.
#[allow(dead_code, reason = "as above")]
pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// Objects, each with its text.
#[allow(dead_code, reason = "as above")]
pub fn objects(rendered: &str) -> Vec<(String, Value)> {
    let texts = rendered.split("\n---\n").map(|text| text.trim_start_matches("---\n").to_owned());
    let objects = texts.map(|text| (text.clone(), yaml(&text)));
    objects.filter(|(_, object)| !object["kind"].is_null()).collect()
}

/// The values of each golden case, as text.
#[allow(dead_code, reason = "as above")]
pub fn cases() -> BTreeMap<String, String> {
    let folders = fs::read_dir(file("tests/golden/chart")).unwrap().map(Result::unwrap);
    let case = |folder: fs::DirEntry| {
        let values = fs::read_to_string(folder.path().join("values.yaml")).unwrap();
        (folder.file_name().into_string().unwrap(), values)
    };
    folders.map(case).collect()
}
