//! What access logs look like.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an access log is written.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// What an access log says: a text, or a value for each of some names. One of the two.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct LogFormat {
    /// A line with Envoy's `%COMMANDS%`.
    #[schemars(length(max = 8192))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Names with texts that may hold Envoy's `%COMMANDS%`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
