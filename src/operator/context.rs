//! What reconcilers share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::Stream;
use kube::{
    Client, Resource,
    runtime::events::{Event, Recorder, Reporter},
};
use tokio::sync::watch;

use super::{definitions, fleet::Fleet, platform::Platform, rollout::Rollouts};
use crate::{api::meshwright::labels::MANAGER, runtime::events, webhook::server::Installations};

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
    /// All proxies.
    pub fleet: Fleet,
    /// How the renewal of proxies goes.
    pub rollouts: Rollouts,
    /// What became of the CustomResourceDefinitions.
    pub definitions: watch::Receiver<definitions::Report>,
    /// PEM of the webhook's CA.
    pub webhook_ca: watch::Receiver<String>,
    /// Whose turn it is to be reconciled, of the installations: see [`super::installation::handover`].
    pub turn: Arc<tokio::sync::Mutex<()>>,
}

impl Context {
    /// Before anything is known, and with nothing that changes.
    pub fn new(client: Client, platform: Platform) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), Reporter::from(MANAGER)),
            client,
            platform,
            backoff: Backoff::default(),
            installations: Arc::default(),
            changed: watch::channel(()).1,
            fleet: Fleet::default(),
            rollouts: Rollouts::default(),
            definitions: watch::channel(definitions::Report::default()).1,
            webhook_ca: watch::channel(String::new()).1,
            turn: Arc::default(),
        }
    }

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
