//! What a MeshInstallation must be beyond its schema.

mod workload;

use std::{collections::BTreeSet, sync::LazyLock, time::Duration};

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps,
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::{CustomResourceExt, ResourceExt};
use serde_json::Value;

use super::{fleet, mesh, names, neighbours, read, unknown};
use crate::{
    api::meshwright::{Gateway, Injection, MeshInstallation, Proxy, Redirection, Resources},
    diagnostic::{Diagnostic, ObjectRef},
    operator::{gateway_workload::RESERVED_PORTS, version},
    webhook::inject::{
        Options, check, container,
        decide::{KUBERNETES_NAMESPACES, selector},
        options::{amounts, form, metadata},
    },
};

const SHORTEST_LIFETIME: Duration = Duration::from_mins(1);
const LONGEST_LIFETIME: Duration = crate::ca::CERTIFICATE_TTL;

static SPEC_SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
    let crd = MeshInstallation::crd();
    let schema = crd.spec.versions.into_iter().find_map(|version| version.schema);
    let properties = schema.and_then(|schema| schema.open_api_v3_schema?.properties);
    properties.and_then(|mut fields| fields.remove("spec")).unwrap_or_default()
});

/// Checks the object as a client sent it. The error is a reason why it cannot even be read.
pub fn check_json<'a>(
    object: &Value,
    others: impl Iterator<Item = &'a MeshInstallation>,
) -> Result<Vec<Diagnostic>, String> {
    let typed: MeshInstallation = read(object)?;
    let mut found = check(&typed, others);
    let about = object_ref(&typed);
    for path in unknown_fields(&object["spec"]) {
        found.push(Diagnostic::error(&about, path, "UnknownField", "there is no such field"));
    }
    Ok(found)
}

/// Paths of the fields of a spec that this version does not know.
pub fn unknown_fields(spec: &Value) -> Vec<String> {
    unknown::fields(&SPEC_SCHEMA, spec, "spec")
}

/// Checks an object that the API server holds.
pub fn check<'a>(
    installation: &MeshInstallation,
    others: impl Iterator<Item = &'a MeshInstallation>,
) -> Vec<Diagnostic> {
    let mut findings = Findings { about: object_ref(installation), found: Vec::new() };
    let spec = &installation.spec;
    let others: Vec<_> = others.collect();
    findings.found = names::check(&findings.about, installation, &others);
    findings.found.extend(neighbours::check(&findings.about, installation, &others));
    findings.found.extend(version::check(&findings.about, &spec.version));
    findings.taken(installation, others.into_iter());
    findings.selectors(&spec.injection);
    match spec.proxy.certificate_lifetime() {
        Some(lifetime) if (SHORTEST_LIFETIME..=LONGEST_LIFETIME).contains(&lifetime) => {}
        _ => findings.error(
            "spec.proxy.certificateTtl",
            "InvalidDuration",
            format!("{:?} is not a duration between 1m and 24h", spec.proxy.certificate_ttl),
        ),
    }
    findings.resources("spec.controlPlane.resources", spec.control_plane.resources.as_ref());
    findings.resources("spec.proxy.resources", spec.proxy.resources.as_ref());
    for problem in check::problems(&spec.injection) {
        findings.error(problem.path, "InvalidInjection", problem.message);
    }
    workload::check(&mut findings, installation);
    for problem in fleet::problems(&spec.fleet) {
        findings.error(problem.path, problem.reason, problem.message);
    }
    findings.proxy(&spec.proxy);
    findings.redirection(&spec.redirection);
    findings.found.extend(mesh::check(installation));
    let mut names = BTreeSet::new();
    for (index, gateway) in spec.gateways.iter().enumerate() {
        let path = format!("spec.gateways[{index}]");
        if !names.insert((&gateway.namespace, &gateway.name)) {
            let message = format!("a gateway {} stands above it already", gateway.name);
            findings.error(format!("{path}.name"), "Duplicate", message);
        }
        findings.gateway(&path, gateway);
        let more = super::gateway::check(&findings.about, &path, gateway, spec.profile);
        findings.found.extend(more);
    }
    findings.found
}

struct Findings {
    about: ObjectRef,
    found: Vec<Diagnostic>,
}

impl Findings {
    fn error(&mut self, path: impl Into<String>, reason: &'static str, message: impl Into<String>) {
        self.found.push(Diagnostic::error(&self.about, path, reason, message));
    }

    fn warning(
        &mut self,
        path: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.found.push(Diagnostic::warning(&self.about, path, reason, message));
    }

    /// What an older installation has cannot be had again: two would undo each other's work.
    fn taken<'a>(
        &mut self,
        installation: &MeshInstallation,
        others: impl Iterator<Item = &'a MeshInstallation>,
    ) {
        for other in others.filter(|other| names::is_older(other, installation)) {
            let name = other.name_any();
            for (index, gateway) in installation.spec.gateways.iter().enumerate() {
                let same =
                    |g: &Gateway| (&g.namespace, &g.name) == (&gateway.namespace, &gateway.name);
                if other.spec.gateways.iter().any(same) {
                    let message =
                        format!("MeshInstallation {name} has a gateway of this name there");
                    self.error(format!("spec.gateways[{index}].name"), "GatewayTaken", message);
                }
            }
        }
    }

    /// A selector that can never match is a mistake, and `never` must not fail silently.
    fn selectors(&mut self, injection: &Injection) {
        for (list, selectors) in [("never", &injection.never), ("always", &injection.always)] {
            for (index, selector) in selectors.iter().enumerate() {
                if let Some((path, problem)) = selector::problem(selector) {
                    let path = format!("spec.injection.{list}[{index}].{path}");
                    self.error(path, "InvalidSelector", problem);
                }
            }
        }
    }

    fn resources(&mut self, path: &str, resources: Option<&Resources>) {
        let Some(resources) = resources else { return };
        for (list, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
            for (name, amount) in amounts {
                let valid = match amount {
                    IntOrString::Int(amount) => *amount >= 0,
                    IntOrString::String(text) => amounts::parse(text).is_some(),
                };
                if !valid {
                    let message = format!("{} is not an amount such as 100m or 64Mi", text(amount));
                    self.error(format!("{path}.{list}.{name}"), "InvalidQuantity", message);
                }
            }
        }
        if let Some(name) = amounts::exceeded(&container::resources(resources)) {
            let message = "more is asked for than the limit allows";
            self.error(format!("{path}.requests.{name}"), "AboveLimit", message);
        }
    }

    /// The defaults of what pods can say by annotations, by the same rules.
    fn proxy(&mut self, proxy: &Proxy) {
        if !proxy.image.is_empty() && form::image(&proxy.image).is_err() {
            let message = format!("{:?} is no reference to an image", proxy.image);
            self.error("spec.proxy.image", "InvalidImage", message);
        }
        for (index, secret) in proxy.image_pull_secrets.iter().enumerate() {
            if !form::is_name(secret) {
                let message = format!("{secret:?} is no name of a Secret");
                self.error(format!("spec.proxy.imagePullSecrets[{index}]"), "InvalidName", message);
            }
        }
        if let Err(because) = form::component_levels(&proxy.component_log_level) {
            let message = format!(
                "{because}; it must be a list of components of Envoy with their levels, such as upstream:debug"
            );
            self.error("spec.proxy.componentLogLevel", "InvalidLogLevel", message);
        }
        for (name, value) in &proxy.metadata {
            let path = format!("spec.proxy.metadata.{name}");
            if let Err(because) = metadata::apply(&mut Options::default(), name, value) {
                self.error(path, "InvalidMetadata", because);
            } else if let Some(warning) = metadata::warning(name) {
                self.warning(path, "NoEffect", warning);
            }
        }
    }

    fn redirection(&mut self, redirection: &Redirection) {
        let Redirection { include_outbound_cidrs, exclude_outbound_cidrs, .. } = redirection;
        let included = include_outbound_cidrs.as_deref().unwrap_or_default();
        // All of them, if it stands alone.
        if included != ["*"] {
            self.list("includeOutboundCidrs", included, "InvalidCidr", form::cidr);
        }
        self.list("excludeOutboundCidrs", exclude_outbound_cidrs, "InvalidCidr", form::cidr);
        let ports = |ports: &[i32]| ports.iter().map(i32::to_string).collect::<Vec<_>>();
        let port = |text: &str| form::port(text).map(|port| port.to_string());
        self.list(
            "excludeOutboundPorts",
            &ports(&redirection.exclude_outbound_ports),
            "InvalidPort",
            port,
        );
        self.list(
            "excludeInboundPorts",
            &ports(&redirection.exclude_inbound_ports),
            "InvalidPort",
            port,
        );
    }

    fn list(
        &mut self,
        field: &str,
        items: &[String],
        reason: &'static str,
        one: impl Fn(&str) -> form::Result<String>,
    ) {
        for (index, item) in items.iter().enumerate() {
            if let Err(because) = one(item) {
                self.error(format!("spec.redirection.{field}[{index}]"), reason, because);
            }
        }
    }

    fn gateway(&mut self, path: &str, gateway: &Gateway) {
        if KUBERNETES_NAMESPACES.contains(&gateway.namespace.as_str()) {
            let message = format!("{} belongs to Kubernetes", gateway.namespace);
            self.error(format!("{path}.namespace"), "ReservedNamespace", message);
        }
        let (mut names, mut targets) = (BTreeSet::new(), BTreeSet::new());
        for (index, port) in gateway.ports.iter().enumerate() {
            let path = format!("{path}.ports[{index}]");
            if !names.insert(&port.name) {
                let message = format!("a port {} stands above it already", port.name);
                self.error(format!("{path}.name"), "Duplicate", message);
            }
            let target = u16::try_from(port.port).map(crate::plan::gateway_target_port);
            if u16::try_from(port.port).is_ok_and(|port| RESERVED_PORTS.contains(&port)) {
                let message = format!("{} is one of the proxy's own ports", port.port);
                self.error(format!("{path}.port"), "ReservedPort", message);
            } else if target.is_ok_and(|target| !targets.insert(target)) {
                let message = format!(
                    "port {} leads to the same port of the pod as one above it (80 and 8080, or 443 and 8443, cannot be had together)",
                    port.port
                );
                self.error(format!("{path}.port"), "Duplicate", message);
            }
        }
        for key in gateway.labels.keys().filter(|key| key.starts_with("meshwright.dev/")) {
            let message = "labels under meshwright.dev/ are set by the operator";
            self.error(format!("{path}.labels.{key}"), "ReservedLabel", message);
        }
    }
}

pub(super) fn object_ref(installation: &MeshInstallation) -> ObjectRef {
    ObjectRef {
        api_version: "meshwright.dev/v1alpha1",
        kind: "MeshInstallation",
        namespace: String::new(),
        name: installation.name_any(),
        generation: installation.metadata.generation.unwrap_or_default(),
    }
}

fn text(amount: &IntOrString) -> String {
    match amount {
        IntOrString::Int(amount) => amount.to_string(),
        IntOrString::String(text) => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(spec: &Value) -> Vec<String> {
        let object = json!({
            "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
            "metadata": {"name": "mesh"}, "spec": spec,
        });
        let found = check_json(&object, std::iter::empty()).unwrap();
        found.into_iter().map(|finding| format!("{} {}", finding.path, finding.reason)).collect()
    }

    #[test]
    fn an_empty_spec_is_valid() {
        assert!(problems(&json!({})).is_empty());
    }

    #[test]
    fn defaults_of_proxies_are_what_annotations_may_be() {
        let cases = [
            (
                json!({"proxy": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1"}}}}),
                "spec.proxy.resources.requests.cpu AboveLimit",
            ),
            (json!({"proxy": {"image": "a b"}}), "spec.proxy.image InvalidImage"),
            (
                json!({"proxy": {"imagePullSecrets": ["a", "B"]}}),
                "spec.proxy.imagePullSecrets[1] InvalidName",
            ),
            (
                json!({"proxy": {"componentLogLevel": "upstraem:debug"}}),
                "spec.proxy.componentLogLevel InvalidLogLevel",
            ),
            (
                json!({"proxy": {"metadata": {"POD_NAME": "x"}}}),
                "spec.proxy.metadata.POD_NAME InvalidMetadata",
            ),
            (
                json!({"proxy": {"metadata": {"SECRET_TTL": "1h"}}}),
                "spec.proxy.metadata.SECRET_TTL NoEffect",
            ),
            (
                json!({"redirection": {"includeOutboundCidrs": ["10.0.0.0/8", "*"]}}),
                "spec.redirection.includeOutboundCidrs[1] InvalidCidr",
            ),
            (
                json!({"redirection": {"excludeInboundPorts": [0]}}),
                "spec.redirection.excludeInboundPorts[0] InvalidPort",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(problems(&spec), [expected], "{spec}");
        }
    }

    #[test]
    fn names_the_field_and_the_reason() {
        let port = |name: &str, port: i32| json!({"name": name, "port": port});
        let gateway = |ports: &[Value]| json!({"gateways": [{"name": "in", "ports": ports}]});
        let cases = [
            (json!({"proxi": {}}), "spec.proxi UnknownField"),
            (json!({"proxy": {"logLevl": "info"}}), "spec.proxy.logLevl UnknownField"),
            (json!({"gateways": [{"name": "in", "x": 1}]}), "spec.gateways[0].x UnknownField"),
            (
                json!({"proxy": {"certificateTtl": "5s"}}),
                "spec.proxy.certificateTtl InvalidDuration",
            ),
            (
                json!({"proxy": {"resources": {"limits": {"cpu": "much"}}}}),
                "spec.proxy.resources.limits.cpu InvalidQuantity",
            ),
            (
                gateway(&[port("a", 80), port("b", 8080)]),
                "spec.gateways[0].ports[1].port Duplicate",
            ),
            (gateway(&[port("a", 80), port("a", 81)]), "spec.gateways[0].ports[1].name Duplicate"),
            (gateway(&[port("a", 15021)]), "spec.gateways[0].ports[0].port ReservedPort"),
            (
                json!({"gateways": [{"name": "in"}, {"name": "in"}]}),
                "spec.gateways[1].name Duplicate",
            ),
            (
                json!({"gateways": [{"name": "in", "namespace": "kube-system"}]}),
                "spec.gateways[0].namespace ReservedNamespace",
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(problems(&spec), [expected], "{spec}");
        }
    }

    #[test]
    fn a_revision_belongs_to_one() {
        let installation = |name: &str| {
            MeshInstallation::new(name, crate::api::meshwright::MeshInstallationSpec::default())
        };
        let (mine, other) = (installation("mine"), installation("other"));
        let found = check(&mine, [&mine, &other].into_iter());
        assert_eq!(found[0].path, "spec.revision");
        assert!(check(&mine, std::iter::once(&mine)).is_empty());
    }
}
