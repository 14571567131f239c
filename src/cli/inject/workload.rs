//! The pods that workloads will make, injected where their templates stand.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::webhook::inject::{self, Decision, InjectConfig, Namespace};

/// Group, kind, and where in it the pod template is.
const KINDS: [(&str, &str, &str); 13] = [
    ("", "Pod", ""),
    ("", "ReplicationController", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("extensions", "Deployment", "/spec/template"),
    ("extensions", "DaemonSet", "/spec/template"),
    ("extensions", "ReplicaSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
    ("apps.openshift.io", "DeploymentConfig", "/spec/template"),
    ("", "DeploymentConfig", "/spec/template"),
];
/// What the controller puts into a pod's metadata, and its template does not have.
const BY_CONTROLLER: [&str; 3] = ["namespace", "generateName", "ownerReferences"];

/// What decides about workloads beside themselves.
#[derive(Clone, Debug)]
pub struct Mesh<'a> {
    pub config: &'a InjectConfig,
    /// By name.
    pub namespaces: &'a BTreeMap<String, Namespace>,
    /// Of workloads that name none.
    pub default_namespace: &'a str,
}

/// What became of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `KIND NAMESPACE/NAME`
    pub workload: String,
    pub verdict: Verdict,
    /// Why.
    pub because: String,
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Injected,
    Skipped,
    Denied,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Skipped => "skipped",
            Self::Denied => "denied",
        }
    }
}

/// Injects all workloads of a document, Lists included. Other objects stay as they are.
pub fn inject_all(document: &mut Value, mesh: &Mesh<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    each(document, &mut |workload| findings.push(workload.inject(mesh)));
    findings
}

/// Namespaces of the document's workloads.
pub fn namespaces(document: &Value, default_namespace: &str) -> Vec<String> {
    let mut names = Vec::new();
    // The same walk as over what is to be changed.
    each(&mut document.clone(), &mut |workload| {
        names.push(workload.namespace(default_namespace));
    });
    names
}

/// The Namespaces that a document defines.
pub fn defined_namespaces(document: &Value) -> Vec<Namespace> {
    if let Some(items) = items(document) {
        return items.iter().flat_map(defined_namespaces).collect();
    }
    if document["apiVersion"] != "v1" || document["kind"] != "Namespace" {
        return Vec::new();
    }
    let Some(name) = document["metadata"]["name"].as_str() else { return Vec::new() };
    let pairs = |field: &str| {
        let pairs = document["metadata"][field].as_object().into_iter().flatten();
        pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    };
    vec![Namespace::new(name, pairs("labels"), &pairs("annotations"))]
}

fn items(document: &Value) -> Option<&Vec<Value>> {
    document["kind"].as_str().filter(|kind| kind.ends_with("List"))?;
    document["items"].as_array()
}

/// An object with a pod template.
struct Workload<'a> {
    kind: String,
    template: &'static str,
    object: &'a mut Value,
}

/// Calls `act` for each workload in a document.
fn each(document: &mut Value, act: &mut dyn FnMut(Workload<'_>)) {
    let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if items(document).is_some() {
        let Some(Value::Array(items)) = document.get_mut("items") else { return };
        for item in items {
            each_item(item, &version, &kind, act);
        }
        return;
    }
    visit(document, &version, kind, act);
}

/// Items of a list of one kind need not say which.
fn each_item(item: &mut Value, version: &str, list: &str, act: &mut dyn FnMut(Workload<'_>)) {
    let kind = list.strip_suffix("List").unwrap_or_default();
    if item["kind"].is_string() || kind.is_empty() {
        each(item, act);
    } else {
        visit(item, version, kind.to_owned(), act);
    }
}

fn visit(object: &mut Value, version: &str, kind: String, act: &mut dyn FnMut(Workload<'_>)) {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let known = KINDS.iter().find(|known| (known.0, known.1) == (group, kind.as_str()));
    if let Some((_, _, template)) = known
        && object.pointer(template).is_some_and(Value::is_object)
    {
        act(Workload { kind, template, object });
    }
}

impl Workload<'_> {
    fn namespace(&self, default: &str) -> String {
        let own = self.object["metadata"]["namespace"].as_str().filter(|name| !name.is_empty());
        own.unwrap_or(default).to_owned()
    }

    /// Its name, or the beginning of it where the API server is to complete it.
    fn name(&self) -> String {
        let metadata = &self.object["metadata"];
        let given = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str());
        given.unwrap_or_default().trim_end_matches('-').to_owned()
    }

    fn inject(self, mesh: &Mesh<'_>) -> Finding {
        let name = self.namespace(mesh.default_namespace);
        let workload = format!("{} {name}/{}", self.kind, self.name());
        let pod = self.pod(&name);
        let unknown = || Namespace { name: name.clone(), ..Namespace::default() };
        let namespace = mesh.namespaces.get(&name).cloned().unwrap_or_else(unknown);
        let outcome = inject::inject(&pod, &namespace, mesh.config);
        match outcome {
            Ok(outcome) => {
                let verdict = match outcome.decision {
                    Decision::Inject(_) => Verdict::Injected,
                    Decision::Skip(_) => Verdict::Skipped,
                };
                if outcome.pod != pod
                    && let Some(template) = self.object.pointer_mut(self.template)
                {
                    *template = as_template(outcome.pod, template);
                }
                let because = outcome.decision.reason().to_string();
                Finding { workload, verdict, because, warnings: outcome.warnings }
            }
            Err(error) => Finding {
                workload,
                verdict: Verdict::Denied,
                because: error.to_string(),
                warnings: Vec::new(),
            },
        }
    }

    /// The pod as the webhook will see it, as far as injection looks at it: what controls it stands
    /// for the objects in between, of which nobody knows the names yet.
    fn pod(&self, namespace: &str) -> Value {
        let mut pod = self.object.pointer(self.template).cloned().unwrap_or_default();
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        if !pod["metadata"].is_object() {
            pod["metadata"] = Value::Object(Map::new());
        }
        let metadata = &mut pod["metadata"];
        metadata["namespace"] = namespace.into();
        if !self.template.is_empty() {
            let name = self.name();
            metadata["generateName"] = format!("{name}-").into();
            metadata["ownerReferences"] =
                json!([{"kind": self.kind, "name": name, "controller": true}]);
        }
        pod
    }
}

/// A pod as the template that makes it; `before` says what a template of this kind has.
fn as_template(mut pod: Value, before: &Value) -> Value {
    let restore = |now: &mut Value, before: &Value, fields: &[&str]| {
        let Value::Object(now) = now else { return };
        for field in fields {
            match before.get(field) {
                Some(value) => drop(now.insert((*field).to_owned(), value.clone())),
                None => drop(now.remove(*field)),
            }
        }
    };
    restore(&mut pod, before, &["apiVersion", "kind"]);
    restore(&mut pod["metadata"], &before["metadata"], &BY_CONTROLLER);
    pod
}
