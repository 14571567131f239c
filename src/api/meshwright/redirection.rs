//! How a pod's traffic gets to its proxy, and the agent's DNS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a pod's traffic gets to its proxy. Annotations of a pod win.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Redirection {
    /// How inbound connections are intercepted.
    pub mode: RedirectionMode,
    /// Who writes the rules.
    pub by: RedirectionBy,
    /// Tool that writes the rules.
    pub backend: RedirectionBackend,
    /// Ranges whose outbound traffic is captured, such as `10.0.0.0/8`; `*` for all.
    #[schemars(length(max = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub include_outbound_cidrs: Option<Vec<String>>,
    /// Ranges whose outbound traffic is left alone.
    #[schemars(length(max = 256))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_outbound_cidrs: Vec<String>,
    /// Ports whose outbound traffic is left alone.
    #[schemars(length(max = 256), inner(range(min = 1, max = 65535)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_outbound_ports: Vec<i32>,
    /// Ports whose inbound traffic is left alone.
    #[schemars(length(max = 256), inner(range(min = 1, max = 65535)))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_inbound_ports: Vec<i32>,
    /// Whether packets that belong to no known connection are dropped, which otherwise may reset
    /// connections under load.
    pub drop_invalid: bool,
}

/// How inbound connections are intercepted.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "UPPERCASE")]
pub enum RedirectionMode {
    /// The proxy connects to the application from an address of its own.
    #[default]
    Redirect,
    /// The application sees its client's address. The proxy runs as root with NET_ADMIN.
    Tproxy,
    /// Nothing is redirected; applications talk to the proxy by themselves.
    None,
}

/// Who writes the rules.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum RedirectionBy {
    /// An init container of the pod, which has the capabilities NET_ADMIN and NET_RAW.
    #[default]
    InitContainer,
    /// The CNI plugin of the node (chart value `cni.enabled`); pods need no capability.
    #[serde(rename = "CNI")]
    Cni,
}

/// Tools that write the rules.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub enum RedirectionBackend {
    /// The first that works in the pod.
    #[default]
    Auto,
    Nftables,
    Iptables,
}

/// The agent's DNS.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Whether the agent answers the application's DNS questions: for hosts of the mesh by itself,
    /// for others with what the pod's nameservers say.
    pub capture: bool,
    /// Whether ServiceEntries without addresses get one, of 240.240.0.0/16 and 2001:2::/48, so that
    /// TCP services on one port can be told apart. Clients need `capture`.
    pub auto_allocate: bool,
}
