//! Istio's ProxyConfig, as the annotation `proxy.istio.io/config` has it: each field works, or a
//! warning says that it does not.

use serde_json::{Map, Value};

use super::{
    bad, form, metadata,
    pod::Draft,
    table::{container, interception, stats},
};

/// A field of ProxyConfig.
pub struct Field {
    pub name: &'static str,
    pub form: &'static str,
    pub effect: &'static str,
    apply: fn(&mut Draft, &Value) -> form::Result<()>,
}

const DURATION: &str = "a duration of up to an hour, such as `45s`";

/// The fields that work.
pub const FIELDS: [Field; 13] = [
    Field {
        name: "concurrency",
        form: "a whole number from 0 to 256",
        effect: "Worker threads of Envoy. With 0 as many as the limit of CPUs allows, or one for \
                 each CPU of the node where there is no limit.",
        apply: |draft, value| {
            draft.options.concurrency = form::whole(&scalar(value)?, 0..=256)?;
            Ok(())
        },
    },
    Field {
        name: "drainDuration",
        form: DURATION,
        effect: "How long Envoy lets connections of a listener that has changed finish.",
        apply: |draft, value| {
            let seconds = form::seconds(text(value)?)?;
            draft.options.listener_drain_seconds = Some(seconds.max(1));
            Ok(())
        },
    },
    Field {
        name: "terminationDrainDuration",
        form: DURATION,
        effect: "How long a proxy that is told to stop lets open connections finish.",
        apply: |draft, value| {
            draft.options.drain_seconds = form::seconds(text(value)?)?;
            Ok(())
        },
    },
    Field {
        name: "holdApplicationUntilProxyStarts",
        form: "`true` or `false`",
        effect: "Whether the application of a classic sidecar waits until the proxy is ready.",
        apply: |draft, value| {
            draft.options.hold = value.as_bool().ok_or_else(String::new)?;
            Ok(())
        },
    },
    Field {
        name: "proxyMetadata",
        form: "an object of texts",
        effect: "Variables of the proxy and of the container that redirects; see below.",
        apply: variables,
    },
    Field {
        name: "discoveryAddress",
        form: "HOST:PORT",
        effect: "As by `meshwright.dev/discovery-address`.",
        apply: |draft, value| {
            draft.options.discovery_address = Some(form::address(text(value)?)?.to_owned());
            Ok(())
        },
    },
    Field {
        name: "interceptionMode",
        form: "`REDIRECT`, `TPROXY` or `NONE`",
        effect: "As by `meshwright.dev/interception-mode`.",
        apply: |draft, value| {
            draft.options.redirection.mode = interception(text(value)?)?;
            Ok(())
        },
    },
    Field {
        name: "image",
        form: "an object with `imageType`: `default`, `debug` or `distroless`",
        effect: "As by `meshwright.dev/proxy-image-type`.",
        apply: |draft, value| {
            let fields = only(value, &["imageType"])?;
            let kind = fields.get("imageType").map_or(Ok("default"), text)?;
            if container::image_type(kind)? {
                draft.warn(container::one_image(kind));
            }
            Ok(())
        },
    },
    Field {
        name: "extraStatTags",
        form: "a list of names of letters, digits and underscores",
        effect: "As by `meshwright.dev/extra-stat-tags`.",
        apply: |_, value| stats::check_tags(&texts(value)?),
    },
    Field {
        name: "proxyStatsMatcher",
        form: "an object with lists `inclusionPrefixes`, `inclusionSuffixes`, `inclusionRegexps`",
        effect: "As by `meshwright.dev/stats-inclusion-prefixes` and its like.",
        apply: matcher,
    },
    Field {
        name: "runtimeValues",
        form: "an object of texts",
        effect: "Runtime flags of Envoy.",
        apply: |draft, value| {
            for (name, value) in object(value)? {
                draft.options.runtime.insert(name.clone(), scalar(value)?);
            }
            Ok(())
        },
    },
    Field {
        name: "statusPort",
        form: "15020",
        effect: "The agent's port is the same everywhere; for its answer to whether the proxy is \
                 ready there is `meshwright.dev/status-port`.",
        apply: |_, value| if value == 15020 { Ok(()) } else { Err(String::new()) },
    },
    Field {
        name: "proxyAdminPort",
        form: "15000",
        effect: "Envoy's administration is at the same port everywhere.",
        apply: |_, value| if value == 15000 { Ok(()) } else { Err(String::new()) },
    },
];

/// The fields that do nothing, with what to do instead.
pub const WITHOUT_EFFECT: [(&str, &str); 23] = [
    ("availabilityZone", "localities come from the nodes' labels"),
    ("binaryPath", "use the annotation proxy-image"),
    ("caCertificatesPem", "set the trusted roots for the whole mesh"),
    ("configPath", "the bootstrap is where the agent writes it"),
    ("controlPlaneAuthPolicy", "the control plane is always asked by mutual TLS"),
    ("customConfigFile", "use the annotation bootstrap-override"),
    ("envoyAccessLogService", "use a Telemetry"),
    ("envoyMetricsService", "metrics are scraped from port 15020"),
    ("fileFlushInterval", "logs go to standard output"),
    ("fileFlushMinSizeKb", "logs go to standard output"),
    ("gatewayTopology", "set it for the gateway"),
    ("meshId", "the mesh is known by its trust domain"),
    ("privateKeyProvider", "keys are made by the agent"),
    ("proxyBootstrapTemplatePath", "use the annotation bootstrap-override"),
    ("proxyHeaders", "use an EnvoyFilter or a VirtualService"),
    ("readinessProbe", "give the application's container a readinessProbe"),
    ("serviceCluster", "it is the name of the workload"),
    ("statNameLength", "Envoy has no such limit"),
    ("statsdUdpAddress", "metrics are scraped from port 15020"),
    ("statsCompression", "use the annotation stats-compression"),
    ("tracing", "use a Telemetry"),
    ("tracingServiceName", "use a Telemetry"),
    ("zipkinAddress", "use a Telemetry"),
];

/// Applies all fields of the annotation's value.
pub(super) fn apply(draft: &mut Draft, yaml: &str) -> form::Result<()> {
    for (name, value) in parse(yaml)? {
        let name = camel_case(&name);
        if let Some((name, instead)) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name) {
            draft.warn(format!("proxy-config: {name} has no effect: {instead}"));
            continue;
        }
        let Some(field) = FIELDS.iter().find(|field| field.name == name) else {
            return Err(format!("ProxyConfig has no field {}", form::part(&name)));
        };
        (field.apply)(draft, &value).map_err(|because| {
            if because.is_empty() {
                format!("{} must be {}", field.name, field.form)
            } else {
                format!("{}: {because}", field.name)
            }
        })?;
    }
    Ok(())
}

/// The YAML as an object. What is made to grow beyond measure in reading is refused.
fn parse(yaml: &str) -> form::Result<Map<String, Value>> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: 10_000,
            max_aliases: 0,
            max_anchors: 0,
            max_documents: 1,
        },
    };
    let read = |error: serde_saphyr::Error| match bad::harmless(&error.to_string()) {
        text if text.contains("Anchors {") => "it may have no anchors and aliases".to_owned(),
        text => text,
    };
    match serde_saphyr::from_str_with_options(yaml, options).map_err(read)? {
        Value::Object(fields) => Ok(fields),
        Value::Null => Ok(Map::new()),
        _ => Err(String::new()),
    }
}

/// Protobuf's JSON knows fields by their names in the definition too.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut chars = part.chars();
        text.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(chars.as_str());
    }
    text
}

fn variables(draft: &mut Draft, value: &Value) -> form::Result<()> {
    for (name, value) in object(value)? {
        metadata::apply(&mut draft.options, name, &scalar(value)?)?;
        if let Some(warning) = metadata::warning(name) {
            draft.warn(format!("proxy-config: {warning}"));
        }
    }
    Ok(())
}

fn matcher(draft: &mut Draft, value: &Value) -> form::Result<()> {
    let names = ["inclusionPrefixes", "inclusionSuffixes", "inclusionRegexps"];
    let fields = only(value, &names)?;
    let [prefixes, suffixes, regexps] =
        names.map(|name| fields.get(name).map_or(Ok(Vec::new()), texts));
    let stats = &mut draft.options.stats;
    stats.prefixes.extend(prefixes?);
    stats.suffixes.extend(suffixes?);
    stats.regexps.extend(stats::regexps(&regexps?)?);
    Ok(())
}

fn object(value: &Value) -> form::Result<&Map<String, Value>> {
    value.as_object().ok_or_else(String::new)
}

fn only<'a>(value: &'a Value, known: &[&str]) -> form::Result<&'a Map<String, Value>> {
    let fields = object(value)?;
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(format!("there is no field {}", form::part(field))),
        None => Ok(fields),
    }
}

fn text(value: &Value) -> form::Result<&str> {
    value.as_str().ok_or_else(String::new)
}

fn texts(value: &Value) -> form::Result<Vec<String>> {
    let items = value.as_array().ok_or_else(String::new)?;
    items.iter().map(|item| text(item).map(str::to_owned)).collect()
}

/// YAML's numbers and truth values where a text is meant: people forget the quotation marks.
fn scalar(value: &Value) -> form::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(String::new()),
    }
}
