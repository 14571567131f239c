//! CustomResourceDefinitions, generated from the types.
//!
//! Ours are strict. Those of Istio and of the Gateway API are lenient: users bring objects with
//! fields that we do not act on, and those must reach us to be reported, so unknown fields are kept.
//! Clusters that have the upstream definitions keep them; these are for clusters that have none.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSONSchemaProps,
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{CustomResourceExt, ResourceExt};

use super::{
    gateway,
    istio::{networking, security},
    meshwright::{self, labels::DEFINITIONS},
};

/// Where a definition comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// `meshwright.dev`
    Meshwright,
    /// `networking.istio.io` and `security.istio.io`
    Istio,
    /// `gateway.networking.k8s.io`
    GatewayApi,
}

impl Source {
    pub const ALL: [Self; 3] = [Self::Meshwright, Self::Istio, Self::GatewayApi];

    /// Name of the file under `crds/`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Meshwright => "meshwright.yaml",
            Self::Istio => "istio.yaml",
            Self::GatewayApi => "gateway-api.yaml",
        }
    }

    /// The definitions, in the order of their names.
    pub fn definitions(self) -> Vec<CustomResourceDefinition> {
        let mut definitions = self.generated();
        // By this an operator knows the definitions that are ours, and which of two is newer. Those
        // of the Gateway API serve all implementations alike.
        if self != Self::GatewayApi {
            for crd in &mut definitions {
                let version = env!("CARGO_PKG_VERSION").to_owned();
                crd.annotations_mut().insert(DEFINITIONS.to_owned(), version);
            }
        }
        definitions
    }

    fn generated(self) -> Vec<CustomResourceDefinition> {
        match self {
            Self::Meshwright => vec![strict(meshwright::MeshInstallation::crd())],
            Self::Istio => {
                const NETWORKING: &[&str] = &["v1beta1", "v1alpha3"];
                const SECURITY: &[&str] = &["v1beta1"];
                vec![
                    istio(networking::DestinationRule::crd(), NETWORKING),
                    istio(networking::Gateway::crd(), NETWORKING),
                    istio(security::PeerAuthentication::crd(), SECURITY),
                    istio(networking::ServiceEntry::crd(), NETWORKING),
                    istio(networking::VirtualService::crd(), NETWORKING),
                ]
            }
            Self::GatewayApi => vec![
                gateway_api(gateway::GatewayClass::crd(), &GATEWAY_CLASS_COLUMNS),
                gateway_api(gateway::Gateway::crd(), &GATEWAY_COLUMNS),
                gateway_api(gateway::HttpRoute::crd(), &HTTP_ROUTE_COLUMNS),
                gateway_api(gateway::ReferenceGrant::crd(), &[]),
            ],
        }
    }
}

/// Ours: what has no default that its own rules allow must be given. Rust's zero is none for a port.
fn strict(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) =
            version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            require_what_has_no_default(schema);
        }
    }
    crd
}

fn require_what_has_no_default(schema: &mut JSONSchemaProps) {
    let mut required = schema.required.take().unwrap_or_default();
    for (name, field) in schema.properties.iter_mut().flatten() {
        require_what_has_no_default(field);
        if !allows_its_default(field) {
            field.default = None;
            required.push(name.clone());
        }
    }
    required.sort();
    required.dedup();
    schema.required = (!required.is_empty()).then_some(required);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        require_what_has_no_default(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        require_what_has_no_default(values);
    }
}

fn allows_its_default(field: &JSONSchemaProps) -> bool {
    let Some(default) = &field.default else { return true };
    let number = default.0.as_f64();
    let length = default.0.as_str().map(|text| text.chars().count());
    let too_small = number.zip(field.minimum).is_some_and(|(number, least)| number < least);
    let too_short = length
        .zip(field.min_length.and_then(|least| usize::try_from(least).ok()))
        .is_some_and(|(length, least)| length < least);
    !too_small && !too_short
}

type Column = (&'static str, &'static str, &'static str);

const GATEWAY_CLASS_COLUMNS: [Column; 2] = [
    ("Controller", "string", ".spec.controllerName"),
    ("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status"),
];
const GATEWAY_COLUMNS: [Column; 3] = [
    ("Class", "string", ".spec.gatewayClassName"),
    ("Address", "string", ".status.addresses[*].value"),
    ("Programmed", "string", ".status.conditions[?(@.type==\"Programmed\")].status"),
];
const HTTP_ROUTE_COLUMNS: [Column; 1] = [("Hostnames", "string", ".spec.hostnames")];
const AGE: Column = ("Age", "date", ".metadata.creationTimestamp");

/// The Gateway API version whose kinds these are.
const BUNDLE_VERSION: &str = "v1.6.3";

/// Serves the object's other versions too; all have one schema, and the first is stored.
fn istio(mut crd: CustomResourceDefinition, other_versions: &[&str]) -> CustomResourceDefinition {
    lenient(&mut crd);
    for name in other_versions {
        let mut version = crd.spec.versions[0].clone();
        (*name).clone_into(&mut version.name);
        version.storage = false;
        crd.spec.versions.push(version);
    }
    crd
}

fn gateway_api(mut crd: CustomResourceDefinition, columns: &[Column]) -> CustomResourceDefinition {
    lenient(&mut crd);
    let annotations = crd.annotations_mut();
    let mut annotate =
        |key: &str, value: &str| annotations.insert(key.to_owned(), value.to_owned());
    annotate("gateway.networking.k8s.io/bundle-version", BUNDLE_VERSION);
    annotate("gateway.networking.k8s.io/channel", "standard");
    // Kubernetes asks for this on its own groups.
    annotate("api-approved.kubernetes.io", "unapproved, a lenient form of the upstream definition");
    let column = |(name, type_, path): &Column| CustomResourceColumnDefinition {
        name: (*name).to_owned(),
        type_: (*type_).to_owned(),
        json_path: (*path).to_owned(),
        ..CustomResourceColumnDefinition::default()
    };
    let columns: Vec<_> = columns.iter().chain([&AGE]).map(column).collect();
    for version in &mut crd.spec.versions {
        version.additional_printer_columns = Some(columns.clone());
    }
    // Older clients ask for v1beta1, which has had the same fields since v1 exists.
    if crd.spec.versions[0].name == "v1" && crd.spec.names.kind != "ReferenceGrant" {
        let mut version = crd.spec.versions[0].clone();
        "v1beta1".clone_into(&mut version.name);
        version.storage = false;
        crd.spec.versions.push(version);
    }
    crd
}

fn lenient(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let Some(fields) = schema.and_then(|schema| schema.properties.as_mut()) else { continue };
        for (name, field) in fields {
            loosen(field);
            if name == "spec" {
                field.x_kubernetes_preserve_unknown_fields = Some(true);
            }
        }
    }
}

/// Keeps unknown fields, sets no defaults into users' objects, and lets several writers of one
/// status have conditions of their own.
fn loosen(schema: &mut JSONSchemaProps) {
    schema.default = None;
    schema.required = None;
    schema.enum_ = None;
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        // Not a format of Kubernetes; the bounds say the same.
        schema.format = None;
    }
    for (name, field) in schema.properties.iter_mut().flatten() {
        loosen(field);
        keyed(name, field);
    }
    if schema.properties.is_some() {
        schema.x_kubernetes_preserve_unknown_fields = Some(true);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut schema.items {
        loosen(item);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &mut schema.additional_properties {
        loosen(value);
    }
}

/// Makes lists of status maps by their key.
fn keyed(name: &str, field: &mut JSONSchemaProps) {
    let Some(JSONSchemaPropsOrArray::Schema(item)) = &mut field.items else { return };
    let has = |key: &str| item.properties.as_ref().is_some_and(|fields| fields.contains_key(key));
    let key = match name {
        "conditions" if has("type") => "type",
        "listeners" if has("name") => "name",
        _ => return,
    };
    field.x_kubernetes_list_type = Some("map".to_owned());
    field.x_kubernetes_list_map_keys = Some(vec![key.to_owned()]);
    // The API server asks for the key of such a list.
    item.required = Some(vec![key.to_owned()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd(source: Source, kind: &str) -> CustomResourceDefinition {
        source.definitions().into_iter().find(|crd| crd.spec.names.kind == kind).unwrap()
    }

    #[test]
    fn istio_kinds_are_served_in_all_versions_and_stored_in_one() {
        let versions: Vec<_> = crd(Source::Istio, "VirtualService")
            .spec
            .versions
            .iter()
            .map(|version| (version.name.clone(), version.storage))
            .collect();
        let expected = [("v1", true), ("v1beta1", false), ("v1alpha3", false)];
        assert_eq!(versions, expected.map(|(name, storage)| (name.to_owned(), storage)));
    }

    #[test]
    fn unknown_fields_of_others_kinds_survive_and_ours_do_not() {
        let spec = |crd: &CustomResourceDefinition| {
            let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            schema.properties.unwrap()["spec"].clone()
        };
        let theirs = spec(&crd(Source::Istio, "DestinationRule"));
        assert_eq!(theirs.x_kubernetes_preserve_unknown_fields, Some(true));
        let ours = spec(&crd(Source::Meshwright, "MeshInstallation"));
        assert_eq!(ours.x_kubernetes_preserve_unknown_fields, None);
        assert!(ours.properties.unwrap()["revision"].default.is_some());
    }
}
