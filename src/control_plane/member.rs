//! A connected proxy, as others than its own stream ask about it.

use std::{
    hash::{BuildHasher, BuildHasherDefault},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use envoy_types::pb::{
    envoy::config::core::v3::{Node, node::UserAgentVersionType},
    google::protobuf::value::Kind,
};
use time::OffsetDateTime;
use xxhash_rust::xxh3::Xxh3;

use crate::{ca::Certificate, mesh::ProxyNode, watch::Key, xds::Rejection};

/// Key of a node's metadata with the version of the agent.
pub const VERSION_METADATA: &str = "MESHWRIGHT_VERSION";

/// A connected proxy.
#[derive(Debug)]
pub struct Member {
    pub node: ProxyNode,
    pub rejections: Vec<Rejection>,
    pub facts: Facts,
    pub waiting: Arc<Waiting>,
}

/// What does not change while a stream lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Of the certificate that the stream was opened with.
    pub certificate: Option<Validity>,
    /// Version of Envoy; empty if it does not say.
    pub envoy: String,
    /// Version of the agent; empty if it does not say.
    pub agent: String,
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

impl Facts {
    pub fn new(node: &Node, certificate: Option<&Certificate>) -> Self {
        let validity = |c: &Certificate| Validity { from: c.not_before, until: c.not_after };
        Self {
            certificate: certificate.map(validity),
            envoy: envoy_version(node),
            agent: agent_version(node),
        }
    }

    /// How long until the stream should be opened anew, so that it shows the certificate that the pod
    /// has by then: agents renew at half of a certificate's life, and Envoy takes the new one for new
    /// connections only. `None` where that is past: another stream would show the same one again.
    pub fn reconnect_in(&self, pod: &Key, now: OffsetDateTime) -> Option<Duration> {
        let validity = self.certificate?;
        let life = validity.until - validity.from;
        // Pods that started together do not come back together.
        let spread = BuildHasherDefault::<Xxh3>::default().hash_one(pod) % 100;
        let part = 0.7 + f64::from(u8::try_from(spread).unwrap_or_default()) / 1000.0;
        (validity.from + life * part - now)
            .try_into()
            .ok()
            .filter(|pause: &Duration| !pause.is_zero())
    }
}

fn envoy_version(node: &Node) -> String {
    let Some(UserAgentVersionType::UserAgentBuildVersion(build)) = &node.user_agent_version_type
    else {
        return String::new();
    };
    let version = build.version.as_ref();
    version
        .map_or_else(String::new, |v| format!("{}.{}.{}", v.major_number, v.minor_number, v.patch))
}

fn agent_version(node: &Node) -> String {
    let fields = node.metadata.as_ref().map(|metadata| &metadata.fields);
    let kind = fields.and_then(|fields| fields.get(VERSION_METADATA)?.kind.as_ref());
    match kind {
        // A proxy says what it likes, and it is kept.
        Some(Kind::StringValue(text)) if text.len() <= 64 => text.clone(),
        _ => String::new(),
    }
}

/// Since when a proxy has not answered what it was sent. Its stream writes this at every push, others
/// read it now and then: no lock.
#[derive(Debug)]
pub struct Waiting {
    opened: Instant,
    /// Milliseconds after `opened`, and one more; 0 if everything is answered.
    since: AtomicU64,
}

impl Waiting {
    pub fn new(opened: Instant) -> Self {
        Self { opened, since: AtomicU64::new(0) }
    }

    pub fn begin(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.opened).as_millis();
        let since = u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1;
        self.since.store(since, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// How long the oldest push has been without an answer.
    pub fn elapsed(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(self.opened + Duration::from_millis(since)))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::{
        envoy::{config::core::v3::BuildVersion, r#type::v3::SemanticVersion},
        google::protobuf::{Struct, Value},
    };

    use super::*;

    #[test]
    fn a_stream_is_opened_anew_between_renewal_and_expiry() {
        let at = |hour: i64| OffsetDateTime::UNIX_EPOCH + time::Duration::hours(hour);
        let certificate = Some(Validity { from: at(0), until: at(100) });
        let facts = Facts { certificate, ..Facts::default() };
        let mut pauses = std::collections::BTreeSet::new();
        for pod in 0..50 {
            let pod = Key::new("shop", &format!("cart-{pod}"));
            let pause = facts.reconnect_in(&pod, at(10)).unwrap();
            assert!((60..=70).contains(&(pause.as_secs() / 3600)), "{pause:?}");
            pauses.insert(pause);
            assert_eq!(facts.reconnect_in(&pod, at(81)), None);
        }
        assert!(pauses.len() > 10, "all at once: {pauses:?}");
        assert_eq!(Facts::default().reconnect_in(&Key::default(), at(0)), None);
    }

    #[test]
    fn reads_versions() {
        let version = SemanticVersion { major_number: 1, minor_number: 40, patch: 2 };
        let build = BuildVersion { version: Some(version), metadata: None };
        let text = Value { kind: Some(Kind::StringValue("0.3.1".to_owned())) };
        let node = Node {
            user_agent_version_type: Some(UserAgentVersionType::UserAgentBuildVersion(build)),
            metadata: Some(Struct { fields: [(VERSION_METADATA.to_owned(), text)].into() }),
            ..Node::default()
        };
        let facts = Facts::new(&node, None);
        assert_eq!((&*facts.envoy, &*facts.agent), ("1.40.2", "0.3.1"));
        assert_eq!(Facts::new(&Node::default(), None), Facts::default());
    }

    #[test]
    fn waits_from_the_push_to_the_answer() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let waiting = Waiting::new(start);
        assert_eq!(waiting.elapsed(later(1)), None);
        waiting.begin(start);
        assert_eq!(waiting.elapsed(later(3)), Some(Duration::from_secs(3)));
        waiting.end();
        assert_eq!(waiting.elapsed(later(4)), None);
    }
}
