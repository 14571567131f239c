//! Image, resources, logs and volumes of the proxy.

use super::Annotation;
use crate::webhook::inject::options::{form, volumes};

pub(super) const ALL: &[Annotation] = &[
    Annotation {
        name: "proxy-image",
        istio: &["sidecar.istio.io/proxyImage"],
        form: "a reference to an image, or its last part alone",
        example: "registry.example.com/meshwright-proxy:1.2",
        effect: "The image of the proxy and of the container that redirects. Without a `/`, it \
                 stands for the last part of the installation's image, and keeps its tag unless it \
                 has one.",
        apply: |draft, value| {
            let options = &mut draft.options;
            options.image = image(&options.image, form::image(value)?);
            Ok(())
        },
    },
    Annotation {
        name: "proxy-image-type",
        istio: &["sidecar.istio.io/proxyImageType"],
        form: "`default`, `debug` or `distroless`",
        example: "default",
        effect: "Accepted with a warning: there is one image for all three.",
        apply: |draft, value| {
            if image_type(value)? {
                draft.warn(one_image(value));
            }
            Ok(())
        },
    },
    Annotation {
        name: "proxy-cpu",
        istio: &["sidecar.istio.io/proxyCPU"],
        form: "an amount of CPU above nothing and not above its limit",
        example: "100m",
        effect: "CPU that is set aside. Any of these four replaces all of the installation's \
                 requests and limits.",
        apply: |draft, value| draft.request("cpu", value),
    },
    Annotation {
        name: "proxy-memory",
        istio: &["sidecar.istio.io/proxyMemory"],
        form: "an amount of memory above nothing and not above its limit",
        example: "128Mi",
        effect: "Memory that is set aside.",
        apply: |draft, value| draft.request("memory", value),
    },
    Annotation {
        name: "proxy-cpu-limit",
        istio: &["sidecar.istio.io/proxyCPULimit"],
        form: "an amount of CPU above nothing",
        example: "2",
        effect: "CPU that may be used at most.",
        apply: |draft, value| draft.limit("cpu", value),
    },
    Annotation {
        name: "proxy-memory-limit",
        istio: &["sidecar.istio.io/proxyMemoryLimit"],
        form: "an amount of memory above nothing",
        example: "1Gi",
        effect: "Memory that may be used at most.",
        apply: |draft, value| draft.limit("memory", value),
    },
    Annotation {
        name: "log-level",
        istio: &["sidecar.istio.io/logLevel"],
        form: "`trace`, `debug`, `info`, `warning`, `error`, `critical` or `off`",
        example: "debug",
        effect: "What Envoy logs.",
        apply: |draft, value| {
            form::log_level(value)?.as_str().clone_into(&mut draft.options.logs.proxy);
            Ok(())
        },
    },
    Annotation {
        name: "component-log-level",
        istio: &["sidecar.istio.io/componentLogLevel"],
        form: "a list of components of Envoy with their levels",
        example: "upstream:debug,connection:trace",
        effect: "What parts of Envoy log.",
        apply: |draft, value| {
            draft.options.logs.components = form::component_levels(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "agent-log-level",
        istio: &["sidecar.istio.io/agentLogLevel"],
        form: "`none`, `error`, `warn`, `info`, `debug` or `trace`, also as Istio's `default:LEVEL`",
        example: "debug",
        effect: "What the agent logs. Other scopes of Istio's agent have no effect.",
        apply: |draft, value| {
            let (level, others) = form::agent_level(value)?;
            draft.options.logs.agent = level;
            for scope in others {
                draft.warn(format!(
                    "agent-log-level: the agent has no scope {scope}; `default` is all of it"
                ));
            }
            Ok(())
        },
    },
    Annotation {
        name: "user-volume",
        istio: &["sidecar.istio.io/userVolume"],
        form: "a JSON object of volumes' sources by their names",
        example: r#"{"certs":{"secret":{"secretName":"db-certs"}}}"#,
        effect: "Volumes that the pod gets for its proxy.",
        apply: |draft, value| {
            draft.options.volumes.extend(volumes::volumes(value)?);
            Ok(())
        },
    },
    Annotation {
        name: "user-volume-mount",
        istio: &["sidecar.istio.io/userVolumeMount"],
        form: "a JSON object of mounts by the names of the pod's volumes",
        example: r#"{"certs":{"mountPath":"/etc/certs","readOnly":true}}"#,
        effect: "Where the proxy sees volumes of the pod.",
        apply: |draft, value| {
            draft.options.volume_mounts.extend(volumes::mounts(value)?);
            Ok(())
        },
    },
    Annotation {
        name: "bootstrap-override",
        istio: &["sidecar.istio.io/bootstrapOverride"],
        form: "the name of a ConfigMap of the pod's namespace",
        example: "my-bootstrap",
        effect: "Its key `custom_bootstrap.json` is merged into Envoy's bootstrap: objects by \
                 field, lists by appending, all else by replacing.",
        apply: |draft, value| {
            if !form::is_name(value) {
                return Err(String::new());
            }
            draft.options.bootstrap_override = Some(value.to_owned());
            Ok(())
        },
    },
];

/// Whether the type is known, and another than the usual.
pub(in super::super) fn image_type(value: &str) -> form::Result<bool> {
    match value {
        "default" => Ok(false),
        "debug" | "distroless" => Ok(true),
        _ => Err(String::new()),
    }
}

pub(in super::super) fn one_image(kind: &str) -> String {
    format!("the image type {kind} has no effect: the proxy has one image, which has a shell")
}

/// `wanted` as a whole, or in the place of the last part of `default`.
fn image(default: &str, wanted: &str) -> String {
    if wanted.contains('/') {
        return wanted.to_owned();
    }
    let (folder, last) = default.rsplit_once('/').map_or(("", default), |(f, last)| (f, last));
    let slash = if folder.is_empty() { "" } else { "/" };
    let tag = match last.find(['@', ':']) {
        Some(at) if !wanted.contains(['@', ':']) => &last[at..],
        _ => "",
    };
    format!("{folder}{slash}{wanted}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_may_be_given_by_its_last_part() {
        let default = "registry.test:5000/mesh/proxy:1";
        for (wanted, want) in [
            ("other", "registry.test:5000/mesh/other:1"),
            ("other:2", "registry.test:5000/mesh/other:2"),
            ("docker.io/a/b", "docker.io/a/b"),
        ] {
            assert_eq!(image(default, wanted), want);
        }
        assert_eq!(image("proxy:1", "other"), "other:1");
    }
}
