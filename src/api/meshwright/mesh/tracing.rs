//! What of requests is traced.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of requests is traced. Where traces go is the tracing provider's to say.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Percentage of requests that a trace is begun for, in steps of 0.01. Requests that come with a
    /// trace are in it or not, whatever this says.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub sampling: f64,
    /// Tags of every span, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Longest part of a request's path that is kept in a span.
    #[schemars(range(min = 1, max = 65536))]
    pub max_path_tag_length: u32,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { sampling: 1.0, custom_tags: BTreeMap::new(), max_path_tag_length: 256 }
    }
}

/// Where a tag's value comes from. One of the three.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct CustomTag {
    /// Always the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub literal: Option<LiteralTag>,
    /// From an environment variable of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentTag>,
    /// From a header of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderTag>,
}

/// A value that is always the same.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct LiteralTag {
    /// The value.
    pub value: String,
}

/// A value from the proxy's environment.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct EnvironmentTag {
    /// Name of the variable.
    pub name: String,
    /// Value where there is no such variable; no tag if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_value: String,
}

/// A value from the request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderTag {
    /// Name of the header.
    pub name: String,
    /// Value where the request has no such header; no tag if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub default_value: String,
}
