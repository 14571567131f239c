//! Forwarding with a memory: a question that is on its way is not asked again, and an answer that
//! may be kept is not asked for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::watch, time::timeout};

use crate::agent::dns::{
    Figures,
    cache::{Cache, Kept},
    upstream::{self, Upstream},
    wire::{Question, Reply},
};

/// How long upstream may take before an answer past its time is given (RFC 8767).
const PATIENCE: Duration = Duration::from_millis(1800);
/// Questions on their way upstream. Who asks more in one moment does not want answers.
const MOST_RUNNING: usize = 512;

/// Forwards questions.
#[derive(Clone, Debug)]
pub(super) struct Forwarder(Arc<State>);

#[derive(Debug)]
struct State {
    /// The servers' port; another than 53 only in tests.
    port: u16,
    upstream: Upstream,
    cache: Mutex<Cache>,
    running: Mutex<HashMap<Question, watch::Receiver<Outcome>>>,
    figures: Arc<Figures>,
}

/// How far a question has come.
#[derive(Clone, Debug)]
enum Outcome {
    Running,
    /// Upstream said something about the name.
    Answered(Bytes),
    /// Upstream refused, or did not answer.
    Failed(Option<Bytes>),
}

/// What there is for a client.
pub(super) enum Answer {
    New(Bytes),
    /// Past its time.
    Stale(Bytes),
    None,
}

impl Forwarder {
    pub(super) fn new(port: u16, figures: Arc<Figures>) -> Self {
        let (upstream, cache) = (Upstream::default(), Mutex::default());
        Self(Arc::new(State { port, upstream, cache, running: Mutex::default(), figures }))
    }

    /// An answer from earlier.
    pub(super) fn kept(&self, question: &Question) -> Option<Kept> {
        lock(&self.0.cache).get(question, Instant::now())
    }

    /// Asks upstream. `kept` is there for the case that it takes long.
    pub(super) async fn ask(
        &self,
        servers: &[IpAddr],
        question: &Question,
        kept: Option<Bytes>,
    ) -> Answer {
        let outcome = match (self.join(servers, question), &kept) {
            (None, _) => Outcome::Failed(None),
            (Some(running), None) => wait(running).await,
            (Some(running), Some(_)) => {
                timeout(PATIENCE, wait(running)).await.unwrap_or(Outcome::Failed(None))
            }
        };
        match (outcome, kept) {
            (Outcome::Answered(answer), _) => Answer::New(answer),
            (_, Some(kept)) => Answer::Stale(kept),
            (Outcome::Failed(Some(refusal)), None) => {
                self.figures().failed();
                Answer::New(refusal)
            }
            (Outcome::Failed(None) | Outcome::Running, None) => {
                self.figures().failed();
                Answer::None
            }
        }
    }

    /// The outcome of a question, which is asked unless it is on its way already.
    fn join(&self, servers: &[IpAddr], question: &Question) -> Option<watch::Receiver<Outcome>> {
        let mut running = lock(&self.0.running);
        if let Some(outcome) = running.get(question) {
            return Some(outcome.clone());
        }
        if running.len() >= MOST_RUNNING {
            return None;
        }
        let (sender, receiver) = watch::channel(Outcome::Running);
        running.insert(question.clone(), receiver.clone());
        let (this, servers, question) = (self.clone(), servers.to_vec(), question.clone());
        // A task of its own: whoever asked first may go away, and others still wait.
        tokio::spawn(async move { sender.send(this.run(&servers, &question).await) });
        Some(receiver)
    }

    async fn run(&self, servers: &[IpAddr], question: &Question) -> Outcome {
        self.figures().forwarded();
        let reply = self.0.upstream.ask(servers, self.0.port, question).await;
        let now = Instant::now();
        let outcome = {
            let mut cache = lock(&self.0.cache);
            let bytes = |reply: &Reply| Bytes::copy_from_slice(reply.bytes());
            match &reply {
                Some(reply) if upstream::is_good(reply) => {
                    let answer = bytes(reply);
                    cache.put(question, &answer, now);
                    Outcome::Answered(answer)
                }
                other => {
                    cache.failed(question, now);
                    Outcome::Failed(other.as_ref().map(bytes))
                }
            }
        };
        lock(&self.0.running).remove(question);
        outcome
    }

    fn figures(&self) -> &Figures {
        &self.0.figures
    }
}

async fn wait(mut running: watch::Receiver<Outcome>) -> Outcome {
    let ended = |outcome: &Outcome| !matches!(outcome, Outcome::Running);
    running.wait_for(ended).await.map_or(Outcome::Failed(None), |outcome| outcome.clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
