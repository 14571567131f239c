//! Which pods get a proxy beyond what their labels say, and what is laid over all of them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Injection beyond labels.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Injection {
    /// Whether pods of selected namespaces get a proxy if neither their labels nor the selectors
    /// below say anything.
    pub policy: InjectionPolicy,
    /// Pods that match one of these are left alone, unless their own label asks for a proxy. An
    /// empty selector matches nothing.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub never: Vec<LabelSelector>,
    /// Pods that match one of these get a proxy although the policy is `disabled`, unless their own
    /// label refuses it or `never` matches. An empty selector matches nothing. They are looked for in
    /// namespaces that ask for injection: a namespace without labels is never touched.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub always: Vec<LabelSelector>,
    /// Partial pods by name, which pods choose by the annotation `meshwright.dev/templates` (or
    /// Istio's `inject.istio.io/templates`) and which are laid over them as strategic merge patches.
    /// The names `sidecar` and `gateway` are built in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<String, PartialObject>,
    /// Templates of pods that choose none.
    #[schemars(length(max = 16))]
    pub default_templates: Vec<String>,
    /// Laid over every injected pod that the selector matches, in this order, after the templates.
    #[schemars(length(max = 64))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PodPatch>,
}

/// What happens to a pod about which nobody says anything.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum InjectionPolicy {
    #[default]
    Enabled,
    Disabled,
}

/// A strategic merge patch for some pods.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PodPatch {
    /// Pods that get it, by their labels; all injected ones if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// The partial pod.
    pub patch: PartialObject,
}

/// Any part of an object of the API: `metadata` (labels, annotations) and what its kind has beside.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(transparent)]
pub struct PartialObject(pub Map<String, Value>);

impl JsonSchema for PartialObject {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PartialObject".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
    }
}
