//! The environment of the proxy, which is how the agent learns its settings.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::Serialize;

use super::{ProxyIdentity, ProxySettings, Role, volumes};
use crate::{api::meshwright::RedirectionMode, webhook::inject::options::Options};

/// Variables that the kubelet fills from fields of the pod.
const FIELDS: [(&str, &str); 5] = [
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_IP", "status.podIP"),
    ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
    ("NODE_NAME", "spec.nodeName"),
];
/// Name of the Deployment, StatefulSet, … behind the pod.
pub const WORKLOAD_ENV: &str = "MESHWRIGHT_WORKLOAD";
/// The variables of the agent.
const PREFIX: &str = "MESHWRIGHT_";
/// The one of them that is the user's: what the agent logs, by part.
const LOG: &str = "MESHWRIGHT_LOG";

/// Whether a variable of this name is set by the injector alone.
pub fn is_reserved(name: &str) -> bool {
    FIELDS.iter().any(|(field, _)| *field == name) || (name.starts_with(PREFIX) && name != LOG)
}

/// The environment of the proxy.
pub(super) fn proxy(
    settings: &ProxySettings,
    options: &Options,
    identity: &ProxyIdentity,
) -> Vec<EnvVar> {
    let role = match identity.role {
        Role::Sidecar => "sidecar",
        Role::Router => "router",
    };
    let discovery = options.discovery_address.as_ref().unwrap_or(&settings.discovery_address);
    let mut env: Vec<_> = FIELDS.iter().map(|(name, path)| from_field(name, path)).collect();
    env.extend([
        value("MESHWRIGHT_ROLE", role),
        value("MESHWRIGHT_DISCOVERY_ADDRESS", discovery),
        value("MESHWRIGHT_TRUST_DOMAIN", &settings.trust_domain),
        value("MESHWRIGHT_CLUSTER_DOMAIN", &settings.cluster_domain),
        value("MESHWRIGHT_REVISION", &settings.revision),
        value(WORKLOAD_ENV, &identity.workload),
        value("MESHWRIGHT_PROXY_LOG_LEVEL", &options.logs.proxy),
        value("MESHWRIGHT_DRAIN_SECONDS", &options.drain_seconds.to_string()),
        value(
            "MESHWRIGHT_CERTIFICATE_SECONDS",
            &settings.certificate_lifetime.as_secs().to_string(),
        ),
        value("MESHWRIGHT_CONCURRENCY", &options.concurrency.to_string()),
    ]);
    env.extend((options.concurrency == 0).then(cpu_limit));
    env.extend(chosen(options));
    if identity.role == Role::Sidecar {
        env.extend(of_sidecar(options));
    }
    env.extend(metadata(options));
    env
}

/// The variables that the user set for the proxy and what redirects to it.
pub(super) fn metadata(options: &Options) -> Vec<EnvVar> {
    options.metadata.iter().map(|(name, text)| value(name, text)).collect()
}

/// What the agent need not be told where the pod says nothing.
fn chosen(options: &Options) -> impl Iterator<Item = EnvVar> {
    let text = |name: &str, text: &str| (!text.is_empty()).then(|| value(name, text));
    let number =
        |name: &str, number: Option<i32>| number.map(|number| value(name, &number.to_string()));
    let node: BTreeMap<_, _> = options.node_metadata().collect();
    [
        text("MESHWRIGHT_PROXY_COMPONENT_LOG_LEVEL", &options.logs.components),
        text("MESHWRIGHT_AGENT_LOG_LEVEL", &options.logs.agent),
        number("MESHWRIGHT_HEALTH_PORT", options.readiness.port.map(i32::from)),
        number("MESHWRIGHT_MIN_DRAIN_SECONDS", options.min_drain_seconds),
        number("MESHWRIGHT_LISTENER_DRAIN_SECONDS", options.listener_drain_seconds),
        text("MESHWRIGHT_NETWORK", options.network.as_deref().unwrap_or_default()),
        (!options.stats.is_empty()).then(|| json("MESHWRIGHT_STATS", &options.stats)),
        (!options.runtime.is_empty()).then(|| json("MESHWRIGHT_RUNTIME", &options.runtime)),
        (!node.is_empty()).then(|| json("MESHWRIGHT_NODE_METADATA", &node)),
        (options.bootstrap_override.is_some())
            .then(|| value("MESHWRIGHT_BOOTSTRAP_OVERRIDE", &volumes::bootstrap_file())),
    ]
    .into_iter()
    .flatten()
}

/// What only matters where an application is.
fn of_sidecar(options: &Options) -> impl Iterator<Item = EnvVar> {
    let yes = |name: &str, is: bool| is.then(|| value(name, "true"));
    let interception = match options.redirection.mode {
        RedirectionMode::Redirect => None,
        RedirectionMode::Tproxy => Some("TPROXY"),
        RedirectionMode::None => Some("NONE"),
    };
    // It is stopped together with the application, and must outlive it.
    let classic = (!options.native).then(|| value("MESHWRIGHT_SIDECAR", "classic"));
    [
        classic,
        interception.map(|mode| value("MESHWRIGHT_INTERCEPTION", mode)),
        yes("MESHWRIGHT_DNS_CAPTURE", options.dns_capture),
        yes("MESHWRIGHT_WATCH_COMPLETION", options.watch_completion),
    ]
    .into_iter()
    .flatten()
}

/// A variable with a value that the kubelet does not expand.
pub fn value(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(escaped(value)), value_from: None }
}

/// Maps with texts as keys and plain values always have a JSON form.
fn json(name: &str, data: &impl Serialize) -> EnvVar {
    value(name, &serde_json::to_string(data).unwrap_or_default())
}

/// The kubelet expands `$(NAME)` in values and makes `$$` one `$`; what we write is meant literally.
pub fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let mut rest = value.chars().peekable();
    while let Some(c) = rest.next() {
        escaped.push(c);
        if c == '$' && matches!(rest.peek(), Some('$' | '(')) {
            escaped.push('$');
        }
    }
    escaped
}

/// What the kubelet makes of a value of ours.
pub fn unescaped(value: &str) -> String {
    value.replace("$$", "$")
}

/// A variable that the kubelet fills from a field of the pod.
pub fn from_field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

/// The limit in thousandths of a CPU; without a limit, what the node has.
fn cpu_limit() -> EnvVar {
    EnvVar {
        name: "MESHWRIGHT_CPU_LIMIT".to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            resource_field_ref: Some(ResourceFieldSelector {
                container_name: None,
                divisor: Some(Quantity("1m".to_owned())),
                resource: "limits.cpu".to_owned(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_meant_literally() {
        for (text, want) in [("$(A)", "$$(A)"), ("$$(A)", "$$$$(A)"), ("a$b", "a$b"), ("$", "$")] {
            assert_eq!(escaped(text), want);
        }
    }

    proptest! {
        #[test]
        fn unescaping_undoes_escaping(text in "[$()A]{0,12}") {
            prop_assert_eq!(unescaped(&escaped(&text)), text);
        }
    }

    #[test]
    fn the_agents_variables_are_not_the_users() {
        for name in ["POD_NAME", "MESHWRIGHT_ROLE"] {
            assert!(is_reserved(name), "{name}");
        }
        assert!(!is_reserved("MESHWRIGHT_LOG") && !is_reserved("TZ"));
    }
}
