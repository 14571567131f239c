//! What a server says about itself and the request it got, and what a caller makes of it. Both are
//! JSON that the scenarios read, so names here are an interface.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use clap::Args;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Who a server is.
#[derive(Args, Clone, Debug)]
pub struct Whoami {
    /// Name of the service, shown in every answer
    #[arg(long, env = "SERVICE_NAME", default_value = "testapp")]
    pub name: String,
    /// Version of the service, shown in every answer
    #[arg(long = "version", env = "SERVICE_VERSION", default_value = "v1", id = "service_version")]
    pub version: String,
    /// Name of the pod, shown in every answer
    #[arg(long, env = "HOSTNAME", default_value = "-")]
    pub pod: String,
}

impl Whoami {
    /// `service version pod`: how line protocols introduce themselves.
    pub fn words(&self) -> String {
        format!("{} {} {}", self.name, self.version, self.pod)
    }
}

/// A server's answer over HTTP and gRPC.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Answer {
    pub service: String,
    pub version: String,
    pub pod: String,
    /// `HTTP/1.1`, `HTTP/2.0`, `gRPC`.
    pub protocol: String,
    pub method: String,
    pub path: String,
    /// Address of whoever opened the connection: with a sidecar that is the sidecar.
    pub peer: String,
    /// What the request carried, several values of one name joined with a comma.
    pub headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// What `/call` was answered by the services behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Outcome>,
}

impl Answer {
    /// An answer to a request with these headers from this peer; the protocol fills in the rest.
    pub fn to(who: &Whoami, peer: Option<SocketAddr>, headers: &HeaderMap) -> Self {
        Self {
            service: who.name.clone(),
            version: who.version.clone(),
            pod: who.pod.clone(),
            peer: peer.map(canonical).unwrap_or_default(),
            headers: header_map(headers),
            ..Self::default()
        }
    }
}

/// IPv4 as IPv4, also where a dual-stack socket took the connection.
fn canonical(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}

/// Headers as a JSON object.
pub fn header_map(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        map.entry(name.as_str().to_owned())
            .and_modify(|known| {
                known.push(',');
                known.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    map
}

/// What came of one request, as the caller saw it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Outcome {
    pub url: String,
    /// An HTTP status, a gRPC status name, `ok` for line protocols; `error` where there was no answer.
    pub status: String,
    pub ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Headers of the response, HTTP only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The server's answer: JSON where it is JSON, else the text.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub answer: Value,
}

impl Outcome {
    /// A request that got no answer.
    pub fn failed(error: &anyhow::Error) -> Self {
        Self { status: "error".to_owned(), error: Some(format!("{error:#}")), ..Self::default() }
    }

    /// A field of the server's answer about itself.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.answer.get(name).and_then(Value::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_header_are_joined() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", "2".parse().unwrap());
        assert_eq!(header_map(&headers)["x-a"], "1,2");
    }

    #[test]
    fn a_mapped_peer_is_shown_as_ipv4() {
        let peer = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(peer), "10.0.0.1:80");
    }
}
