//! What reconcilers share.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::Stream;
use kube::{
    Client, Resource,
    runtime::events::{Event, Recorder},
};
use tokio::sync::watch;

use super::platform::Platform;
use crate::{api::meshwright::ProxyCount, runtime::events, webhook::server::Installations};

#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub recorder: Recorder,
    pub platform: Platform,
    pub backoff: Backoff,
    /// The installations that exist, kept up to date by every replica.
    pub installations: Arc<ArcSwap<Installations>>,
    /// Says that `installations` changed.
    pub changed: watch::Receiver<()>,
    /// Proxies by revision.
    pub fleet: watch::Receiver<BTreeMap<String, ProxyCount>>,
    /// PEM of the webhook's CA.
    pub webhook_ca: watch::Receiver<String>,
}

impl Context {
    /// Publishes an event about an object. That is best effort: it must not hold anything up.
    pub async fn publish<K: Resource<DynamicType = ()>>(&self, about: &K, event: Event) {
        events::publish(&self.recorder, &about.object_ref(&()), event).await;
    }
}

/// A stream that says when the value changed.
pub fn changes<T: Send + Sync + 'static>(
    receiver: watch::Receiver<T>,
) -> impl Stream<Item = ()> + Send + 'static {
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.changed().await.is_ok().then_some(((), receiver))
    })
}

/// Waiting times that double with each failure of the same object.
#[derive(Clone, Debug, Default)]
pub struct Backoff(Arc<Mutex<HashMap<String, u32>>>);

impl Backoff {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(2);

    /// How long to wait after one more failure.
    pub fn next(&self, name: &str) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(name.to_owned()).or_insert(0);
        let pause = Self::SHORTEST.saturating_mul(1 << (*count).min(10)).min(Self::LONGEST);
        *count += 1;
        pause
    }

    /// Forgets the failures.
    pub fn reset(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_two_minutes() {
        let backoff = Backoff::default();
        let pauses: Vec<_> = (0..9).map(|_| backoff.next("a").as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 120, 120]);
        backoff.reset("a");
        assert_eq!(backoff.next("a").as_secs(), 1);
    }
}
