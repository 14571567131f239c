//! Connections: keepalives, retries, TLS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a proxy notices that the other end of a connection went away without a word.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpKeepalive {
    /// Probes without an answer after which the connection is closed.
    #[schemars(range(min = 1, max = 100))]
    pub probes: u32,
    /// How long a connection is silent before the first probe.
    pub time: String,
    /// Time between probes.
    pub interval: String,
}

impl Default for TcpKeepalive {
    fn default() -> Self {
        // Five minutes in all; the kernel's own two hours are longer than people wait.
        Self { probes: 3, time: "3m".to_owned(), interval: "30s".to_owned() }
    }
}

/// When a request is tried again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetryPolicy {
    /// How often at most; 0 turns retries off. 2 if not given.
    #[schemars(range(min = 0, max = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// How long each try may take; as long as the request itself if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_try_timeout: Option<String>,
    /// Envoy's conditions and status codes, separated by commas: `connect-failure,503`.
    pub retry_on: String,
}

impl HttpRetryPolicy {
    /// Only what cannot have reached the application, or what it says may be tried again.
    pub(super) fn of_routes() -> Self {
        let retry_on = "connect-failure,refused-stream,unavailable,cancelled".to_owned();
        Self { attempts: Some(2), per_try_timeout: None, retry_on }
    }

    /// The application may close an idle connection just as a request is sent on it; before any
    /// answer has begun it is safe to send it again.
    pub(super) fn of_applications() -> Self {
        let retry_on = "reset-before-request".to_owned();
        Self { attempts: Some(2), per_try_timeout: None, retry_on }
    }
}

/// What TLS may be.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsSettings {
    /// The oldest version that is spoken. `TLS_AUTO` is `TLSV1_2`.
    pub min_protocol_version: TlsProtocol,
    /// Ciphers of TLS 1.2, by OpenSSL's names; Envoy's own choice if not given. TLS 1.3 has none to
    /// choose.
    #[schemars(length(max = 32))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
    /// Curves, the preferred first: `X25519MLKEM768`, `X25519`, `P-256`, `P-384`, `P-521`. Envoy's own
    /// choice if not given.
    #[schemars(length(max = 8))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ecdh_curves: Vec<String>,
}

/// Versions of TLS. Older ones are not spoken at all.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema, PartialEq, Eq, Hash)]
pub enum TlsProtocol {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
