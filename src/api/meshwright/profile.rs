//! Profiles: what holds where an installation says nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much runs, and how much it tells, where the rest of the spec says nothing. A profile never adds
/// a gateway to an installation that lists its own.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One small control plane, nothing else.
    Minimal,
    /// One control plane.
    #[default]
    Default,
    /// Several control planes and gateway pods on different nodes, autoscaled, with disruption budgets.
    Ha,
    /// Everything on one small node, with an ingress and an egress gateway and access logs.
    Demo,
}
