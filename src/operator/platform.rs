//! Where the operator runs and what it installs, fixed at its start.

use k8s_openapi::api::apps::v1::Deployment;

const REGISTRY_ENV: &str = "MESHWRIGHT_IMAGE_REGISTRY";
const TAG_ENV: &str = "MESHWRIGHT_IMAGE_TAG";
const PULL_POLICY_ENV: &str = "MESHWRIGHT_IMAGE_PULL_POLICY";

/// Which images pods run, as far as somebody says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Images {
    /// Registry (and path) of the images meshwright and meshwright-proxy [default: meshwright.dev]
    #[arg(long, env = REGISTRY_ENV)]
    pub image_registry: Option<String>,
    /// Tag of the images, where an installation names no version [default: the program's version]
    #[arg(long, env = TAG_ENV)]
    pub image_tag: Option<String>,
    /// Pull policy of the images [default: IfNotPresent]
    #[arg(long, env = PULL_POLICY_ENV, value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: Option<String>,
}

impl Images {
    /// What the chart told this operator.
    pub fn of_operator(operator: &Deployment) -> Self {
        let spec = operator.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        let variables = || {
            let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
            containers.iter().flat_map(|container| container.env.iter().flatten())
        };
        let value = |name: &str| variables().find(|variable| variable.name == name)?.value.clone();
        Self {
            image_registry: value(REGISTRY_ENV),
            image_tag: value(TAG_ENV),
            image_pull_policy: value(PULL_POLICY_ENV),
        }
    }

    /// What is said here, else what is said there.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            image_registry: self.image_registry.or(other.image_registry),
            image_tag: self.image_tag.or(other.image_tag),
            image_pull_policy: self.image_pull_policy.or(other.image_pull_policy),
        }
    }

    /// With the defaults for what nobody says.
    pub fn platform(self, namespace: String, webhook: WebhookEndpoint) -> Platform {
        let or = |given: Option<String>, default: &str| given.unwrap_or_else(|| default.to_owned());
        Platform {
            namespace,
            image_registry: or(self.image_registry, "meshwright.dev")
                .trim_end_matches('/')
                .to_owned(),
            image_tag: or(self.image_tag, env!("CARGO_PKG_VERSION")),
            image_pull_policy: or(self.image_pull_policy, "IfNotPresent"),
            webhook,
        }
    }
}

/// Settings of the operator itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The operator's namespace: control planes run here too.
    pub namespace: String,
    pub image_registry: String,
    pub image_tag: String,
    pub image_pull_policy: String,
    /// Where the API server reaches the webhooks.
    pub webhook: WebhookEndpoint,
}

/// Where the API server reaches the webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookEndpoint {
    /// The operator's Service.
    Service,
    /// `https://HOST:PORT`, for an operator outside the cluster.
    Url(String),
}

/// Name of the operator's Deployment, Service and ClusterRole.
pub const OPERATOR: &str = "meshwright-operator";

impl Platform {
    /// An image at this version; the operator's own where none is asked for.
    pub fn image(&self, name: &str, version: &str) -> String {
        format!("{}/{name}:{}", self.image_registry, self.version(version))
    }

    /// The image tag in force.
    pub fn version<'a>(&'a self, asked: &'a str) -> &'a str {
        if asked.is_empty() { &self.image_tag } else { asked }
    }

    /// Name of the Service and Deployment of a revision's control plane.
    pub fn control_plane_name(revision: &str) -> String {
        match revision {
            crate::api::meshwright::labels::DEFAULT_REVISION => {
                "meshwright-control-plane".to_owned()
            }
            _ => format!("meshwright-control-plane-{revision}"),
        }
    }

    /// Where proxies find the control plane of a revision.
    pub fn discovery_address(&self, revision: &str) -> String {
        format!("{}.{}.svc:15012", Self::control_plane_name(revision), self.namespace)
    }
}
