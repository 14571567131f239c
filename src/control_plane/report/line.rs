//! The lines of a report: JSON objects, one a line. Both ends use them.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::watch::Key;

/// Where a control plane reports, on the port of xDS.
pub const PATH: &str = "/v1/proxies";
/// A listener hears something at least this often.
pub const HEARTBEAT_SECONDS: u64 = 15;

/// One line. A type that a reader does not know is of a newer control plane and means nothing to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Line {
    /// The first one.
    Hello {
        /// Of the control plane.
        version: String,
    },
    Proxy(Report),
    /// All proxies that were connected at the beginning have been told of.
    Synced,
    Heartbeat,
    #[serde(other)]
    Unknown,
}

impl Line {
    /// With its end.
    pub fn write(&self, buffer: &mut Vec<u8>) -> serde_json::Result<()> {
        serde_json::to_writer(&mut *buffer, self)?;
        buffer.push(b'\n');
        Ok(())
    }
}

/// What is known of one proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub namespace: String,
    pub pod: String,
    pub state: State,
    /// What it refuses first, with Envoy's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the certificate ends that its stream was opened with.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_time",
        deserialize_with = "read_time"
    )]
    pub certificate_ends: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub envoy: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
}

/// What a proxy makes of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Current,
    Pending,
    Rejected,
    Disconnected,
}

impl Report {
    pub fn new(pod: &Key, state: State) -> Self {
        Self {
            namespace: pod.namespace.to_string(),
            pod: pod.name.to_string(),
            state,
            message: String::new(),
            certificate_ends: None,
            envoy: String::new(),
            agent: String::new(),
        }
    }
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn write_time<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_none(),
    }
}

fn read_time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let rejected = Report {
            message: "Cluster c: \"no\"\nreally".to_owned(),
            certificate_ends: Some("2026-11-22T08:00:00Z".parse().unwrap()),
            envoy: "1.40.0".to_owned(),
            agent: "0.1.0".to_owned(),
            ..Report::new(&Key::new("shop", "cart-0"), State::Rejected)
        };
        let lines = [
            Line::Hello { version: "0.1.0".to_owned() },
            Line::Proxy(rejected),
            Line::Proxy(Report::new(&Key::new("shop", "cart-1"), State::Disconnected)),
            Line::Synced,
            Line::Heartbeat,
        ];
        let mut bytes = Vec::new();
        for line in &lines {
            line.write(&mut bytes).unwrap();
        }
        let text = String::from_utf8(bytes).unwrap();
        let read: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, lines);
    }

    #[test]
    fn a_newer_control_plane_may_say_more() {
        let read = |text| serde_json::from_str::<Line>(text).unwrap();
        assert_eq!(read(r#"{"type":"weather","sky":"blue"}"#), Line::Unknown);
        let line =
            read(r#"{"type":"proxy","namespace":"a","pod":"b","state":"current","mood":"good"}"#);
        assert_eq!(line, Line::Proxy(Report::new(&Key::new("a", "b"), State::Current)));
    }
}
