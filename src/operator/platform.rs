//! Where the operator runs and what it installs, fixed at its start.

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
