//! Properties of injection: it changes nothing twice, keeps what it does not own, and gets along with
//! other webhooks.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inject/fixture.rs"]
mod fixture;
#[path = "inject/generate.rs"]
mod generate;

use fixture::{config, namespace};
use generate::{act, installation, items, pod, webhook};
use meshwright::{
    api::meshwright::{PartialObject, RedirectionBy, RedirectionMode},
    webhook::inject::{InjectConfig, inject},
};
use proptest::prelude::*;
use serde_json::Value;

const OURS: [&str; 4] = ["meshwright-proxy", "meshwright-redirect", "istio-proxy", "tools-"];

fn injected(pod: &Value, config: &InjectConfig) -> Value {
    inject(pod, &namespace(), config).unwrap().pod
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    items(pod, field).iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
}

/// The user's containers, without what injection may change in them.
fn own_containers(pod: &Value, field: &str) -> Vec<Value> {
    let is_ours = |item: &Value| {
        let name = item["name"].as_str().unwrap();
        OURS.iter().any(|ours| name.starts_with(ours))
    };
    let mut own = items(pod, field);
    own.retain(|item| !is_ours(item));
    for container in &mut own {
        let probes = ["/readinessProbe", "/livenessProbe", "/startupProbe"];
        for probe in probes.into_iter().chain(["/lifecycle/preStop", "/lifecycle/postStart"]) {
            if let Some(Value::Object(probe)) = container.pointer_mut(probe) {
                for handler in ["httpGet", "tcpSocket", "grpc"] {
                    probe.remove(handler);
                }
            }
        }
    }
    own
}

/// What every injected pod must be.
fn assert_sound(pod: &Value, config: &InjectConfig) -> Result<(), TestCaseError> {
    let options = &config.proxy.defaults;
    let (init, apps) = (names(pod, "initContainers"), names(pod, "containers"));
    let redirects = options.redirection.mode != RedirectionMode::None;
    let count = |name: &str| init.iter().chain(&apps).filter(|other| *other == name).count();
    prop_assert_eq!(count("meshwright-proxy"), 1);
    prop_assert_eq!(count("meshwright-redirect"), usize::from(redirects));
    prop_assert_eq!(count("istio-proxy"), 0);

    let proxy_at = usize::from(redirects);
    if options.native {
        prop_assert_eq!(&init[proxy_at], "meshwright-proxy");
        prop_assert_eq!(&items(pod, "initContainers")[proxy_at]["restartPolicy"], "Always");
    } else {
        let place = if options.hold { apps.first() } else { apps.last() };
        prop_assert_eq!(place.unwrap(), "meshwright-proxy");
        let containers = items(pod, "containers");
        prop_assert!(containers.iter().all(|item| item.get("restartPolicy").is_none()));
    }
    if redirects {
        let first = options.native || options.redirection.by == RedirectionBy::Cni;
        let place = if first { init.first() } else { init.last() };
        prop_assert_eq!(place.unwrap(), "meshwright-redirect");
    }
    let volumes = names(pod, "volumes");
    for container in items(pod, "initContainers").iter().chain(&items(pod, "containers")) {
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            prop_assert!(volumes.contains(&mount["name"].as_str().unwrap().to_owned()));
        }
    }
    prop_assert_eq!(&pod["metadata"]["labels"]["meshwright.dev/revision"], "default");
    let told = pod["metadata"]["annotations"].get("meshwright.dev/redirect");
    prop_assert_eq!(told.is_some(), redirects);
    Ok(())
}

proptest! {
    #[test]
    fn a_second_injection_changes_nothing(pod in pod(), config in installation()) {
        let once = injected(&pod, &config);
        assert_sound(&once, &config)?;
        prop_assert_eq!(injected(&once, &config), once);
    }

    #[test]
    fn the_users_fields_stay(pod in pod(), config in installation()) {
        let after = injected(&pod, &config);
        prop_assert_eq!(&after["spec"]["x"], &pod["spec"]["x"]);
        for field in ["containers", "initContainers"] {
            prop_assert_eq!(own_containers(&after, field), own_containers(&pod, field));
        }
        for volume in items(&pod, "volumes") {
            prop_assert!(items(&after, "volumes").contains(&volume));
        }
        for (key, value) in pod["metadata"]["labels"].as_object().unwrap() {
            prop_assert_eq!(&after["metadata"]["labels"][key], value);
        }
    }

    /// Reinvocation: the API server asks us again after another webhook has worked on the pod.
    #[test]
    fn another_webhook_after_us(pod in pod(), config in installation(), webhook in webhook()) {
        let seen = act(&webhook, &injected(&pod, &config));
        let after = injected(&seen, &config);
        assert_sound(&after, &config)?;
        prop_assert_eq!(&injected(&after, &config), &after);
        for field in ["containers", "initContainers"] {
            prop_assert_eq!(own_containers(&after, field), own_containers(&seen, field));
        }
        for field in ["volumes", "imagePullSecrets"] {
            for item in items(&seen, field) {
                prop_assert!(items(&after, field).contains(&item), "{item} is gone");
            }
        }
        for part in ["labels", "annotations"] {
            for key in seen["metadata"][part].as_object().unwrap().keys() {
                prop_assert!(after["metadata"][part].get(key).is_some(), "{part} {key} is gone");
            }
        }
    }

    /// What it changed in our own containers stays as well, as long as it left them there.
    #[test]
    fn another_webhook_in_our_containers(pod in pod(), config in installation(), hook in webhook()) {
        let seen = act(&hook, &injected(&pod, &config));
        let after = injected(&seen, &config);
        let all = |pod: &Value| [items(pod, "initContainers"), items(pod, "containers")].concat();
        for before in all(&seen).iter().filter(|item| item["env"].to_string().contains("\"W\"")) {
            let now = all(&after).into_iter().find(|item| item["name"] == before["name"]).unwrap();
            prop_assert!(now["env"].to_string().contains("\"W\""), "{now}");
            // Without our annotation nobody can tell what of a container was whose work.
            if !seen["metadata"]["annotations"]["meshwright.dev/status"].is_null() {
                prop_assert_eq!(&now["image"], "mirror/proxy");
            }
        }
    }

    #[test]
    fn another_webhook_before_us(pod in pod(), config in installation(), webhook in webhook()) {
        let once = injected(&act(&webhook, &pod), &config);
        assert_sound(&once, &config)?;
        prop_assert_eq!(injected(&once, &config), once);
    }

    /// Nothing is left of how an earlier installation injected the pod.
    #[test]
    fn the_last_installation_counts(pod in pod(), first in installation(), last in installation()) {
        let direct = injected(&pod, &last);
        let after = injected(&injected(&pod, &first), &last);
        let left = json_patch::diff(&direct, &after);
        prop_assert!(left.0.is_empty(), "{left}");
    }

    #[test]
    fn what_was_rewritten_can_be_put_back(pod in pod()) {
        let mut off = config();
        off.proxy.defaults.rewrite_probes = false;
        let direct = injected(&pod, &off);
        let back = injected(&injected(&pod, &config()), &off);
        prop_assert_eq!(&back["spec"], &direct["spec"]);
        for container in items(&pod, "containers") {
            let settings = container["image"] == "auto";
            prop_assert!(settings || items(&back, "containers").contains(&container));
        }
    }

    /// Where others' layers may come, injection works on the whole pod and not on an excerpt of it.
    #[test]
    fn an_excerpt_leads_to_the_same(pod in pod(), config in installation()) {
        let mut whole = config.clone();
        whole.injection.templates.insert("unused".to_owned(), PartialObject::default());
        prop_assert_eq!(injected(&pod, &config), injected(&pod, &whole));
    }

    #[test]
    fn no_json_makes_it_panic(
        text in r#"\{"(metadata|spec)":(null|\[\]|\{\}|1|"x"),"spec":(null|\[\]|\{"containers":(null|\{\}|\[null\]|\[\{\}\])\})\}"#
    ) {
        if let Ok(pod) = serde_json::from_str::<Value>(&text) {
            drop(inject(&pod, &namespace(), &config()));
        }
    }
}
