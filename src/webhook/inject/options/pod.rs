//! What one pod says about its proxy, laid over the installation's defaults. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    BadOption, Options, amounts, bad, form, metadata,
    table::{self, Annotation},
};

const NETWORK_LABELS: [&str; 2] = ["meshwright.dev/network", "topology.istio.io/network"];

/// What a pod has chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    pub options: Options,
    /// What was asked for and has no effect, or another than one might think.
    pub warnings: Vec<String>,
}

/// The options of a pod while its annotations are read.
pub(super) struct Draft {
    pub(super) options: Options,
    /// What annotations say about resources; all of it, if they say anything.
    resources: ResourceRequirements,
    pub(super) warnings: Vec<String>,
    /// The volumes that the pod has.
    volumes: Vec<String>,
}

impl Options {
    /// What this pod's proxy shall be like. `istio`: Istio's names mean what ours mean.
    pub fn of_pod(defaults: &Self, pod: &Pod, istio: bool) -> Result<Chosen, Vec<BadOption>> {
        let none = BTreeMap::new();
        let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
        let mut draft = Draft::new(defaults, pod.spec.as_ref());
        let mut bad = Vec::new();
        if annotations.keys().any(|key| table::is_concerned(key)) {
            for annotation in table::all() {
                if let Some((name, value)) = given(annotation, annotations, istio, &mut draft) {
                    bad.extend(draft.apply(annotation, name, value));
                }
            }
            draft.warnings.extend(table::strangers(annotations.keys(), istio));
        }
        bad.extend(draft.network(pod.metadata.labels.as_ref().unwrap_or(&none), istio));
        bad.extend(draft.check(annotations));
        if bad.is_empty() { Ok(draft.finish(pod.spec.as_ref())) } else { Err(bad) }
    }
}

/// The annotation as the pod has it: by our name before Istio's.
fn given<'a>(
    annotation: &Annotation,
    annotations: &'a BTreeMap<String, String>,
    istio: bool,
    draft: &mut Draft,
) -> Option<(&'a str, &'a str)> {
    let names = annotation.names(istio);
    let mut found = names.filter_map(|name| annotations.get_key_value(name.as_ref()));
    let (name, value) = found.next()?;
    for (other, differing) in found.filter(|(_, other)| *other != value) {
        draft.warnings.push(format!(
            "{name} wins over {other}, which says {} and has no effect",
            bad::shown(differing)
        ));
    }
    Some((name, value))
}

impl Draft {
    fn new(defaults: &Options, spec: Option<&PodSpec>) -> Self {
        let volumes = spec.and_then(|spec| spec.volumes.as_ref()).into_iter().flatten();
        Self {
            options: defaults.clone(),
            resources: ResourceRequirements::default(),
            warnings: Vec::new(),
            volumes: volumes.map(|volume| volume.name.clone()).collect(),
        }
    }

    fn apply(&mut self, annotation: &Annotation, name: &str, value: &str) -> Option<BadOption> {
        let because = (annotation.apply)(self, value).err()?;
        Some(BadOption {
            annotation: name.to_owned(),
            value: bad::shown(value),
            because,
            form: annotation.form,
            example: annotation.example,
        })
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    pub(super) fn request(&mut self, resource: &str, amount: &str) -> form::Result<()> {
        set(&mut self.resources.requests, resource, amount)
    }

    pub(super) fn limit(&mut self, resource: &str, amount: &str) -> form::Result<()> {
        set(&mut self.resources.limits, resource, amount)
    }

    /// A label that the API server has checked already.
    fn network(&mut self, labels: &BTreeMap<String, String>, istio: bool) -> Option<BadOption> {
        let names = if istio { &NETWORK_LABELS[..] } else { &NETWORK_LABELS[..1] };
        let (label, value) = names.iter().find_map(|name| labels.get_key_value(*name))?;
        match metadata::network(value) {
            Ok(network) => {
                self.options.network = Some(network);
                None
            }
            Err(because) => Some(BadOption {
                annotation: format!("label {label}"),
                value: bad::shown(value),
                because,
                form: "the name of a network",
                example: "network-1",
            }),
        }
    }

    /// What is only wrong together with something else.
    fn check(&self, annotations: &BTreeMap<String, String>) -> Option<BadOption> {
        let complain = |name: &str, because: String| {
            let annotation = table::all().find(|annotation| annotation.name == name)?;
            let mut names = annotation.names(true);
            let given = names.find_map(|name| annotations.get_key_value(name.as_ref()));
            let (annotation_name, value) = given?;
            Some(BadOption {
                annotation: annotation_name.clone(),
                value: bad::shown(value),
                because,
                form: annotation.form,
                example: annotation.example,
            })
        };
        if let Some(resource) = amounts::exceeded(&self.resources) {
            return complain(&format!("proxy-{resource}"), "it is more than the limit".to_owned());
        }
        let known = |name: &String| {
            self.volumes.contains(name) || self.options.volumes.iter().any(|v| v.name == *name)
        };
        let unknown = self.options.volume_mounts.iter().find(|mount| !known(&mount.name));
        unknown.and_then(|mount| {
            let because = format!("the pod has no volume {}", form::part(&mount.name));
            complain("user-volume-mount", because)
        })
    }

    fn finish(self, spec: Option<&PodSpec>) -> Chosen {
        let Self { mut options, resources, warnings, .. } = self;
        if resources != ResourceRequirements::default() {
            options.resources = resources;
        }
        let ends = spec.and_then(|spec| spec.restart_policy.as_deref());
        options.watch_completion = !options.native && matches!(ends, Some("Never" | "OnFailure"));
        Chosen { options, warnings }
    }
}

fn set(
    amounts: &mut Option<BTreeMap<String, Quantity>>,
    resource: &str,
    amount: &str,
) -> form::Result<()> {
    let quantity = amounts::quantity(amount)?;
    amounts.get_or_insert_default().insert(resource.to_owned(), quantity);
    Ok(())
}
