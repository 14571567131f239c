//! Which templates a pod chooses.

use serde_json::{Map, Value};

use super::{Error, InjectConfig};
use crate::api::meshwright::labels;

pub(super) const SIDECAR: &str = "sidecar";
pub(super) const GATEWAY: &str = "gateway";

/// One of a pod's templates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Template {
    Sidecar,
    Gateway,
    /// One of the installation's own.
    Custom(String),
}

/// The templates of a pod, in the order in which they are applied.
pub(super) fn chosen(
    annotations: Option<&Map<String, Value>>,
    config: &InjectConfig,
) -> Result<Vec<Template>, Error> {
    let names = |text: &str| {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let keys: &[_] = if config.istio_labels {
        &[labels::TEMPLATES, labels::ISTIO_TEMPLATES]
    } else {
        &[labels::TEMPLATES]
    };
    let given = keys.iter().find_map(|key| {
        let names = names(annotations?.get(*key)?.as_str()?);
        (!names.is_empty()).then(|| (format!("annotation {key}"), names))
    });
    let (field, names) = given.unwrap_or_else(|| {
        let defaults = config.injection.default_templates.clone();
        ("spec.injection.defaultTemplates of the MeshInstallation".to_owned(), defaults)
    });
    if names.is_empty() {
        return Ok(vec![Template::Sidecar]);
    }
    let templates = names.iter().map(|name| template(name, &field, config));
    let templates = templates.collect::<Result<Vec<_>, _>>()?;
    if templates.contains(&Template::Sidecar) && templates.contains(&Template::Gateway) {
        return Err(Error::Template {
            field,
            message: "a proxy is either a sidecar or a gateway: name one of the two".to_owned(),
        });
    }
    Ok(templates)
}

fn template(name: &str, field: &str, config: &InjectConfig) -> Result<Template, Error> {
    match name {
        SIDECAR => Ok(Template::Sidecar),
        GATEWAY => Ok(Template::Gateway),
        _ if config.injection.templates.contains_key(name) => Ok(Template::Custom(name.to_owned())),
        _ => {
            let own = config.injection.templates.keys().map(String::as_str);
            let known: Vec<_> = [SIDECAR, GATEWAY].into_iter().chain(own).collect();
            Err(Error::Template {
                field: field.to_owned(),
                message: format!(
                    "there is no template {name:?} ({}); known are {}",
                    remedy(name),
                    known.join(", ")
                ),
            })
        }
    }
}

/// What somebody who used this template of Istio wants instead.
fn remedy(name: &str) -> &'static str {
    match name {
        "grpc-simple" | "grpc-agent" => {
            "gRPC without a proxy is not supported: choose sidecar, or leave the annotation out"
        }
        "waypoint" => "there are no waypoints: each pod has a proxy of its own",
        _ if name == "kube-gateway" || name.starts_with("agentgateway") => {
            "gateways of the Gateway API are made by the operator: create a Gateway"
        }
        _ => {
            "templates of your own are defined in spec.injection.templates of the MeshInstallation"
        }
    }
}
