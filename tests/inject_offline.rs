//! Offline injection gives what the webhook gives: for each case of `golden/inject`, the template of
//! every workload kind, injected in its file, is the template of the pod that its controller makes and
//! the webhook injects. And `golden/offline`: each folder has files that go in and what must come out.
//! `MESHWRIGHT_UPDATE=1` rewrites the latter.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inject/fixture.rs"]
mod fixture;

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use meshwright::{
    cli::inject::{
        documents::{self, Document},
        explanation, inject,
        workload::{Finding, Mesh, Verdict, defined_namespaces, inject_all},
    },
    webhook::inject::{self as webhook, Decision},
};
use serde_json::{Map, Value, json};

use fixture::{Case, cases};

/// How a controller makes pods: what it puts into their metadata and nothing else has.
struct Controller {
    /// The object with the template at this pointer.
    kind: &'static str,
    api_version: &'static str,
    template: &'static str,
    /// What owns the pod.
    owner: (&'static str, &'static str),
    labels: &'static [(&'static str, &'static str)],
    annotations: &'static [(&'static str, &'static str)],
}

const NAME: &str = "web";
const CONTROLLERS: [Controller; 9] = [
    Controller {
        kind: "Deployment",
        api_version: "apps/v1",
        template: "/spec/template",
        owner: ("ReplicaSet", "web-5d4f8c7b9"),
        labels: &[("pod-template-hash", "5d4f8c7b9")],
        annotations: &[],
    },
    Controller {
        kind: "ReplicaSet",
        api_version: "apps/v1",
        template: "/spec/template",
        owner: ("ReplicaSet", "web"),
        labels: &[],
        annotations: &[],
    },
    Controller {
        kind: "StatefulSet",
        api_version: "apps/v1",
        template: "/spec/template",
        owner: ("StatefulSet", "web"),
        labels: &[
            ("apps.kubernetes.io/pod-index", "0"),
            ("controller-revision-hash", "web-6c5"),
            ("statefulset.kubernetes.io/pod-name", "web-0"),
        ],
        annotations: &[],
    },
    Controller {
        kind: "DaemonSet",
        api_version: "apps/v1",
        template: "/spec/template",
        owner: ("DaemonSet", "web"),
        labels: &[("controller-revision-hash", "7b9"), ("pod-template-generation", "1")],
        annotations: &[],
    },
    Controller {
        kind: "ReplicationController",
        api_version: "v1",
        template: "/spec/template",
        owner: ("ReplicationController", "web"),
        labels: &[],
        annotations: &[],
    },
    Controller {
        kind: "Job",
        api_version: "batch/v1",
        template: "/spec/template",
        owner: ("Job", "web"),
        labels: &[("batch.kubernetes.io/job-name", "web"), ("controller-uid", "u-1")],
        annotations: &[],
    },
    Controller {
        kind: "CronJob",
        api_version: "batch/v1",
        template: "/spec/jobTemplate/spec/template",
        owner: ("Job", "web-29261510"),
        labels: &[("batch.kubernetes.io/job-name", "web-29261510"), ("controller-uid", "u-1")],
        annotations: &[],
    },
    Controller {
        kind: "DeploymentConfig",
        api_version: "apps.openshift.io/v1",
        template: "/spec/template",
        owner: ("ReplicationController", "web-3"),
        labels: &[("deployment", "web-3"), ("deploymentconfig", "web")],
        annotations: &[("openshift.io/deployment-config.name", "web")],
    },
    Controller {
        kind: "Pod",
        api_version: "v1",
        template: "",
        owner: ("", ""),
        labels: &[],
        annotations: &[],
    },
];

/// The case's pod as a template: without what belongs to one pod.
fn template(case: &Case) -> Value {
    let mut metadata = Map::new();
    for field in ["labels", "annotations"] {
        if let Some(Value::Object(map)) = case.pod["metadata"].get(field) {
            let mut map = map.clone();
            map.retain(|key, _| {
                !CONTROLLERS.iter().any(|c| c.labels.iter().any(|(k, _)| k == key))
            });
            metadata.insert(field.to_owned(), Value::Object(map));
        }
    }
    json!({"metadata": metadata, "spec": case.pod["spec"]})
}

impl Controller {
    fn workload(&self, template: &Value) -> Value {
        let mut object = json!({"apiVersion": self.api_version, "kind": self.kind});
        if self.template.is_empty() {
            object["metadata"] = template["metadata"].clone();
            object["spec"] = template["spec"].clone();
        } else if self.kind == "CronJob" {
            object["spec"] = json!({"jobTemplate": {"spec": {"template": template}}});
        } else {
            object["spec"] = json!({"replicas": 1, "template": template});
        }
        object["metadata"]["name"] = NAME.into();
        object
    }

    /// The pod that the webhook sees.
    fn pod(&self, template: &Value, namespace: &str) -> Value {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod"});
        pod["metadata"] = template["metadata"].clone();
        pod["spec"] = template["spec"].clone();
        let metadata = pod["metadata"].as_object_mut().unwrap();
        metadata.insert("namespace".to_owned(), namespace.into());
        if self.template.is_empty() {
            metadata.insert("name".to_owned(), NAME.into());
            return pod;
        }
        let (kind, name) = self.owner;
        let owner = json!({
            "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u-1", "controller": true,
            "blockOwnerDeletion": true,
        });
        metadata.insert("generateName".to_owned(), format!("{name}-").into());
        metadata.insert("ownerReferences".to_owned(), json!([owner]));
        for (field, added) in [("labels", self.labels), ("annotations", self.annotations)] {
            for (key, value) in added {
                pod["metadata"][field][key] = (*value).into();
            }
        }
        pod
    }

    /// The template without what the controller adds.
    fn without_additions(&self, pod: &Value, before: &Value) -> Value {
        let mut metadata = pod["metadata"].clone();
        let map = metadata.as_object_mut().unwrap();
        for field in ["namespace", "generateName", "ownerReferences", "name"] {
            map.remove(field);
        }
        for (field, added) in [("labels", self.labels), ("annotations", self.annotations)] {
            for (key, _) in added {
                if let Some(Value::Object(map)) = metadata.get_mut(field) {
                    map.remove(*key);
                }
            }
            // A map that the controller made for its additions.
            if metadata[field] == json!({}) && before["metadata"].get(field).is_none() {
                metadata.as_object_mut().unwrap().remove(field);
            }
        }
        json!({"metadata": metadata, "spec": pod["spec"]})
    }
}

#[test]
fn every_workload_kind_gets_what_the_webhook_gives_its_pods() {
    let cases = cases();
    for case in &cases {
        let template = template(case);
        for controller in &CONTROLLERS {
            let about = format!("{} as {}", case.name, controller.kind);
            let pod = controller.pod(&template, &case.namespace.name);
            let online = webhook::inject(&pod, &case.namespace, &case.config);

            let namespaces = [(case.namespace.name.clone(), case.namespace.clone())].into();
            let mesh = Mesh {
                config: &case.config,
                namespaces: &namespaces,
                default_namespace: &case.namespace.name,
            };
            let before = controller.workload(&template);
            let mut after = before.clone();
            let findings = inject_all(&mut after, &mesh);
            let [finding] = &findings[..] else { panic!("{about}: {findings:?}") };
            match online {
                Ok(outcome) => {
                    let verdict = match outcome.decision {
                        Decision::Inject(_) => Verdict::Injected,
                        Decision::Skip(_) => Verdict::Skipped,
                    };
                    assert_eq!(finding.verdict, verdict, "{about}");
                    assert_eq!(finding.because, outcome.decision.reason().to_string(), "{about}");
                    assert_eq!(finding.warnings, outcome.warnings, "{about}");
                    let wanted = controller.without_additions(&outcome.pod, &template);
                    let mut got = after.pointer(controller.template).unwrap().clone();
                    if controller.template.is_empty() {
                        got = controller.without_additions(&got, &template);
                    }
                    assert_eq!(got, wanted, "{about}");
                }
                Err(error) => {
                    assert_eq!(finding.verdict, Verdict::Denied, "{about}");
                    assert_eq!(finding.because, error.to_string(), "{about}");
                    assert_eq!(after, before, "{about}");
                }
            }
        }
    }
}

/// The files of a folder, as one goes through them with `-f FOLDER`.
fn documents_of(folder: &Path) -> Vec<Document> {
    let mut files: Vec<_> =
        fs::read_dir(folder.join("in")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let read = |file: &std::path::PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        documents::read(&name, &fs::read_to_string(file).unwrap()).unwrap()
    };
    files.iter().flat_map(read).collect()
}

fn injected(documents: &mut [Document]) -> Vec<Finding> {
    let defined = documents.iter().flat_map(|d| defined_namespaces(&d.value));
    let namespaces: BTreeMap<_, _> = defined.map(|n| (n.name.clone(), n)).collect();
    let config = fixture::config();
    inject(documents, &Mesh { config: &config, namespaces: &namespaces, default_namespace: "shop" })
}

#[test]
fn files_come_out_as_committed() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/offline");
    let mut folders: Vec<_> = fs::read_dir(all).unwrap().map(|e| e.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 5, "only {} cases were found", folders.len());
    for folder in folders {
        let mut documents = documents_of(&folder);
        let findings = injected(&mut documents);
        let explained: String = findings.iter().map(explanation).collect();
        let written = documents::write(&documents).unwrap();
        for (name, text) in [("explained.txt", &explained), ("out.yaml", &written)] {
            let golden = folder.join(name);
            if env::var_os("MESHWRIGHT_UPDATE").is_some() {
                fs::write(&golden, text).unwrap();
            }
            let wanted = fs::read_to_string(&golden).unwrap_or_default();
            assert!(wanted == *text, "{} is now:\n{text}", golden.display());
        }
        // What is injected stays as it is.
        let mut again = documents::read("again", &written).unwrap();
        injected(&mut again);
        assert_eq!(documents::write(&again).unwrap(), written, "{}", folder.display());
    }
}

const INSTALLATION: &str = "apiVersion: meshwright.dev/v1alpha1\nkind: MeshInstallation\n\
    metadata: {name: mesh}\nspec: {revision: v2, tags: [default]}\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n\
    spec: {containers: [{name: web, image: web:1}]}\n";

/// Runs `meshwright inject` over a file: whether it succeeded, standard output, standard error.
fn run(folder: &Path, text: &str, args: &[&str]) -> (bool, String, String) {
    fs::write(folder.join("mesh.yaml"), INSTALLATION).unwrap();
    fs::write(folder.join("in.yaml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_meshwright"))
        .current_dir(folder)
        .args(["inject", "-f", "in.yaml", "--installation", "mesh.yaml"])
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_verb_works_without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let enabled = "--namespace-labels=meshwright.dev/injection=enabled";
    let images = ["--image-registry=registry.test/mesh/", "--image-tag=7"];
    let run = |text: &str, args: &[&str]| run(folder.path(), text, args);

    let (done, out, _) = run(POD, &[enabled, images[0], images[1]]);
    assert!(done && out.contains("image: registry.test/mesh/meshwright-proxy:7"), "{out}");
    assert!(out.contains("meshwright.dev/revision: v2"), "{out}");

    let (done, out, _) = run(POD, &[enabled, "--explain"]);
    assert!(done);
    assert_eq!(out, "Pod shop/web: injected — the namespace is labelled for injection\n");

    let (done, out, warned) = run(POD, &[]);
    assert!(done);
    assert_eq!(out, POD, "nobody asks");
    assert!(warned.contains("the labels of namespace shop are not known"), "{warned}");

    let (done, out, _) = run(POD, &["--output=out.yaml"]);
    assert!(done && out.is_empty());
    assert_eq!(fs::read_to_string(folder.path().join("out.yaml")).unwrap(), POD);
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let enabled = "--namespace-labels=meshwright.dev/injection=enabled";
    let fails = |text: &str, args: &[&str], wanted: &str| {
        let (done, out, error) = run(folder.path(), text, args);
        assert!(!done && out.is_empty(), "{out}");
        assert!(error.contains(wanted), "{error}");
    };
    fails(&format!("{POD}---\na: [\n"), &[enabled], "in.yaml: document 2, line ");
    let unreadable = POD.replace("[{name: web, image: web:1}]", "many");
    fails(&unreadable, &[enabled], "Pod shop/web: this is not a pod that Meshwright can read");
    fails(POD, &["--namespace-labels=on"], "a label is KEY=VALUE");
    fails(POD, &["--image-pull-policy=Sometimes"], "Sometimes");
}
