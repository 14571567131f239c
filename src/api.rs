//! The kinds that users write: ours, Istio's, and those of the Kubernetes Gateway API.
//!
//! Types hold the fields that Meshwright acts on. What a user wrote beyond them is kept under
//! `unsupported`, so that it can be reported by name instead of being ignored.

use std::collections::BTreeMap;

pub mod crd;
pub mod gateway;
pub mod istio;
pub mod meshwright;

/// Fields of an object that this version does not act on, by name. Never silently dropped: each
/// becomes a diagnostic with reason `UnsupportedField`.
pub type Unsupported = BTreeMap<String, serde_json::Value>;
