//! Which image a pod's proxy would have if it were injected now. Pure.

use std::{borrow::Cow, collections::BTreeSet};

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::Value;

use super::pod::InjectedPod;
use crate::{
    api::meshwright::{MeshInstallation, labels},
    operator::{installation::validate::proxy_settings, platform::Platform},
    webhook::inject::{NativeSupport, Options, container::PROXY_CONTAINER, leaves_the_choice},
};

/// Names of the annotation `proxy-image`, ours first.
const ANNOTATIONS: [&str; 2] = ["meshwright.dev/proxy-image", "sidecar.istio.io/proxyImage"];

/// The image that a pod itself asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pin {
    /// By the annotation's names.
    annotations: [Option<String>; 2],
    /// By a container of the pod's own with the proxy's name, as injection noted it.
    container: Option<String>,
}

impl Pin {
    pub fn of(pod: &InjectedPod) -> Option<Self> {
        let annotations = pod.metadata.annotations.as_ref()?;
        let noted = annotations.get(labels::OVERRIDES);
        let noted = noted.and_then(|text| serde_json::from_str::<Value>(text).ok());
        let image = noted.as_ref().and_then(|noted| noted[PROXY_CONTAINER]["image"].as_str());
        let pin = Self {
            annotations: ANNOTATIONS.map(|name| annotations.get(name).cloned()),
            container: image.filter(|image| !leaves_the_choice(image)).map(str::to_owned),
        };
        (pin != Self::default()).then_some(pin)
    }
}

impl AsRef<Self> for Pin {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// What an installation wants of its proxies' images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where the pod asks for nothing.
    pub image: String,
    /// Images that the installation's own templates and patches set for some. Which pods get them
    /// depends on all of the pod, so each of these passes for every pod: better a proxy taken for
    /// current that is not than one renewed again and again.
    pub(super) patched: BTreeSet<String>,
    pub(super) istio: bool,
    /// The tag in force.
    pub version: String,
    /// How long certificates are valid, in seconds.
    pub certificate_seconds: u64,
}

impl Wanted {
    pub fn of(installation: &MeshInstallation, platform: &Platform) -> Self {
        let spec = &installation.spec;
        let settings = proxy_settings(installation, platform, &NativeSupport::default());
        let mut patched = BTreeSet::new();
        // What cannot be written as JSON was not read from it.
        for part in [serde_json::to_value(&spec.injection), serde_json::to_value(&spec.gateways)] {
            images(&part.unwrap_or_default(), &mut patched);
        }
        Self {
            image: settings.defaults.image,
            patched,
            istio: spec.compatibility.istio_labels,
            version: platform.version(&spec.version).to_owned(),
            certificate_seconds: settings.certificate_lifetime.as_secs(),
        }
    }

    /// The image that injection would choose for a pod.
    pub fn image(&self, pin: Option<&Pin>) -> Cow<'_, str> {
        let Some(pin) = pin else { return Cow::Borrowed(&self.image) };
        if let Some(image) = &pin.container {
            return Cow::Owned(image.clone());
        }
        let given = ANNOTATIONS.iter().zip(&pin.annotations);
        let given = given.filter_map(|(name, value)| Some(((*name).to_owned(), value.clone()?)));
        let pod = Pod {
            metadata: ObjectMeta { annotations: Some(given.collect()), ..ObjectMeta::default() },
            ..Pod::default()
        };
        let defaults = Options { image: self.image.clone(), ..Options::default() };
        match Options::of_pod(&defaults, &pod, self.istio) {
            Ok(chosen) => Cow::Owned(chosen.options.image),
            // It would not be injected at all; whatever it runs, a restart makes nothing better.
            Err(_) => Cow::Borrowed(""),
        }
    }

    /// Whether a proxy runs what it would get now.
    pub fn is_current(&self, image: &str, pin: Option<&Pin>) -> bool {
        let expected = self.image(pin);
        expected.is_empty() || expected == image || self.patched.contains(image)
    }
}

/// Images of containers with the proxy's name, wherever they stand.
fn images(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("name").and_then(Value::as_str);
            if matches!(name, Some(PROXY_CONTAINER | "istio-proxy"))
                && let Some(image) = fields.get("image").and_then(Value::as_str)
            {
                found.insert(image.to_owned());
            }
            fields.values().for_each(|value| images(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| images(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operator::platform::{Images, WebhookEndpoint};

    fn wanted(spec: Value) -> Wanted {
        let spec = serde_json::from_value(spec).unwrap();
        let images = Images {
            image_registry: Some("registry.test/mesh".to_owned()),
            image_tag: Some("1.3.0".to_owned()),
            image_pull_policy: None,
        };
        let platform = images.platform("meshwright-system".to_owned(), WebhookEndpoint::Service);
        Wanted::of(&MeshInstallation::new("default", spec), &platform)
    }

    fn pin(annotations: &Value) -> Option<Pin> {
        let pod = json!({"metadata": {"annotations": annotations}});
        Pin::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn the_installation_decides_where_the_pod_does_not() {
        assert_eq!(wanted(json!({})).image(None), "registry.test/mesh/meshwright-proxy:1.3.0");
        let other = wanted(json!({"version": "1.2.0"}));
        assert_eq!(other.image(None), "registry.test/mesh/meshwright-proxy:1.2.0");
        let own = wanted(json!({"proxy": {"image": "mirror.test/proxy:7"}}));
        assert_eq!(own.image(None), "mirror.test/proxy:7");
        assert!(own.is_current("mirror.test/proxy:7", None));
        assert!(!own.is_current("registry.test/mesh/meshwright-proxy:1.3.0", None));
        assert_eq!(pin(&json!({"prometheus.io/scrape": "true"})), None);
    }

    #[test]
    fn an_image_that_the_pod_asks_for_is_the_right_one() {
        let wanted = wanted(json!({}));
        let image = |annotations: Value| wanted.image(pin(&annotations).as_ref()).into_owned();
        let own = json!({"meshwright.dev/proxy-image": "other.test/proxy:2"});
        assert_eq!(image(own.clone()), "other.test/proxy:2");
        assert!(wanted.is_current("other.test/proxy:2", pin(&own).as_ref()));
        assert!(!wanted.is_current(&wanted.image, pin(&own).as_ref()));
        // The last part alone keeps the rest.
        let part = json!({"meshwright.dev/proxy-image": "proxy-debug"});
        assert_eq!(image(part), "registry.test/mesh/proxy-debug:1.3.0");
        let istio = json!({"sidecar.istio.io/proxyImage": "other.test/proxy:3"});
        assert_eq!(image(istio), "other.test/proxy:3");
        let overrides = |image: &str| json!({labels::OVERRIDES: json!({PROXY_CONTAINER: {"image": image}}).to_string()});
        assert_eq!(image(overrides("pinned.test/proxy:4")), "pinned.test/proxy:4");
        assert_eq!(pin(&overrides("auto")), None);
    }

    #[test]
    fn istios_annotation_counts_only_where_istios_names_do() {
        let wanted = wanted(json!({"compatibility": {"istioLabels": false}}));
        let istio = pin(&json!({"sidecar.istio.io/proxyImage": "other.test/proxy:3"}));
        assert_eq!(wanted.image(istio.as_ref()), wanted.image);
    }

    #[test]
    fn an_image_of_the_installations_own_patches_is_not_outdated() {
        let container = json!({"name": PROXY_CONTAINER, "image": "patched.test/proxy:5"});
        let patch = json!({"spec": {"initContainers": [container]}});
        let wanted = wanted(json!({"injection": {"patches": [{"patch": patch}]}}));
        assert!(wanted.is_current("patched.test/proxy:5", None));
        assert!(wanted.is_current("registry.test/mesh/meshwright-proxy:1.3.0", None));
        assert!(!wanted.is_current("registry.test/mesh/meshwright-proxy:1.2.0", None));
    }
}
