//! What the injection tests share: a namespace that asks for injection, a default installation, and
//! the cases of `golden/inject`.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use meshwright::{
    api::meshwright::{Injection, MeshInstallationSpec},
    webhook::inject::{InjectConfig, Namespace, ProxySettings, inject, strategic},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What a MeshInstallation with this spec means for injection.
pub fn config_of(spec: &MeshInstallationSpec, native_supported: bool) -> InjectConfig {
    InjectConfig {
        revision: spec.revision.clone(),
        tags: spec.tags.clone(),
        system_namespace: "meshwright-system".to_owned(),
        istio_labels: spec.compatibility.istio_labels,
        injection: spec.injection.clone(),
        proxy: ProxySettings::new(
            spec,
            "registry.test/meshwright-proxy:1".to_owned(),
            "IfNotPresent",
            "meshwright-control-plane.meshwright-system.svc:15012".to_owned(),
            native_supported,
        ),
    }
}

pub fn config() -> InjectConfig {
    config_of(
        &MeshInstallationSpec {
            injection: Injection::default(),
            ..MeshInstallationSpec::default()
        },
        true,
    )
}

pub fn namespace() -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        labels: [("meshwright.dev/injection".to_owned(), "enabled".to_owned())].into(),
        annotations: BTreeMap::new(),
    }
}

/// One folder of `golden/inject`: `case.yaml` says what it is about and, where that matters, the
/// namespace and the installation; `pod.yaml` goes in; `result.yaml` must come out.
pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub pod: Value,
    pub namespace: Namespace,
    pub config: InjectConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Description {
    /// One sentence for the reader.
    about: String,
    /// Name of the namespace; `shop` if not given.
    #[serde(default)]
    namespace: Option<String>,
    /// Its labels; `meshwright.dev/injection: enabled` if not given.
    #[serde(default)]
    namespace_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    namespace_annotations: BTreeMap<String, String>,
    /// Spec of the MeshInstallation.
    #[serde(default)]
    installation: MeshInstallationSpec,
    /// What happened to the pod before.
    #[serde(default)]
    before: Option<Before>,
    /// Whether every node has native sidecars; yes if not given.
    #[serde(default = "yes")]
    native_supported: bool,
}

/// The pod was injected once already.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Before {
    /// Spec of the MeshInstallation at that time; the same as now if not given.
    #[serde(default)]
    installation: Option<MeshInstallationSpec>,
    /// What another webhook did to it then, as a strategic merge patch.
    #[serde(default)]
    other_webhook: Map<String, Value>,
}

impl Before {
    fn happen(self, pod: &Value, namespace: &Namespace, case: &Description) -> Value {
        let spec = self.installation.as_ref().unwrap_or(&case.installation);
        let config = config_of(spec, case.native_supported);
        let mut pod = inject(pod, namespace, &config).unwrap().pod;
        strategic::merge(pod.as_object_mut().unwrap(), &self.other_webhook).unwrap();
        pod
    }
}

fn yes() -> bool {
    true
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All cases, by name.
pub fn cases() -> Vec<Case> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inject");
    let mut folders: Vec<_> = fs::read_dir(&all).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    folders.into_iter().map(case).collect()
}

fn case(folder: PathBuf) -> Case {
    let mut about: Description = read(&folder.join("case.yaml"));
    assert!(about.about.ends_with('.'), "{}: about is a sentence", folder.display());
    let mut namespace = namespace();
    if let Some(name) = about.namespace.take() {
        namespace.name = name;
    }
    if let Some(labels) = about.namespace_labels.take() {
        namespace.labels = labels;
    }
    namespace.annotations = std::mem::take(&mut about.namespace_annotations);
    let mut pod = read(&folder.join("pod.yaml"));
    if let Some(before) = about.before.take() {
        pod = before.happen(&pod, &namespace, &about);
    }
    Case {
        name: folder.file_name().unwrap().to_string_lossy().into_owned(),
        pod,
        namespace,
        config: config_of(&about.installation, about.native_supported),
        folder,
    }
}
