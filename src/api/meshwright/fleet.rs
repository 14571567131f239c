//! How running proxies come to a new version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How running proxies come to a new version.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetPolicy {
    /// What makes proxies of another version than the installation's go.
    pub strategy: FleetStrategy,
}

/// Ways to renew proxies.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum FleetStrategy {
    /// A pod gets the new proxy whenever it is made anew for another reason.
    #[default]
    OnRestart,
    /// The operator restarts the workloads that own outdated proxies, in waves.
    Rolling,
    /// The operator replaces the image of the sidecar in running pods; the application goes on.
    InPlace,
}
