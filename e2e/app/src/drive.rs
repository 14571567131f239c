//! Makes many requests: so many, for so long, so many at once, at such a rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::caller::Caller;
use crate::tally::Tally;

/// How much to do.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Requests in all; without it, until the duration is over or somebody says stop.
    pub count: Option<u64>,
    pub duration: Option<Duration>,
    pub concurrency: usize,
    /// Requests in a second, over all workers; without it, as fast as answers come.
    pub rate: Option<f64>,
}

/// What the workers of one run share.
struct Run {
    caller: Arc<Caller>,
    pace: Pace,
    started: Instant,
    next: AtomicU64,
    tally: Arc<Mutex<Tally>>,
}

/// Makes the requests and tallies them; returns when all that were begun have ended.
pub async fn drive(
    caller: Arc<Caller>,
    pace: Pace,
    tally: Arc<Mutex<Tally>>,
    stop: watch::Receiver<bool>,
) {
    let workers = pace.concurrency.max(1);
    let started = Instant::now();
    let run = Arc::new(Run { caller, pace, started, next: AtomicU64::new(0), tally });
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(work(run.clone(), stop.clone()));
    }
    while running.join_next().await.is_some() {}
}

async fn work(run: Arc<Run>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        let ticket = run.next.fetch_add(1, Ordering::Relaxed);
        if run.pace.count.is_some_and(|count| ticket >= count) {
            return;
        }
        if let Some(due) = run.due(ticket) {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        if run.pace.duration.is_some_and(|duration| run.started.elapsed() >= duration) {
            return;
        }
        let begun = Instant::now();
        let outcome = run.caller.call(&HeaderMap::new()).await;
        lock(&run.tally).record(&outcome, begun.elapsed());
    }
}

impl Run {
    /// When a ticket's request is to be sent.
    #[expect(clippy::cast_precision_loss, reason = "off by a nanosecond after 2^53 requests")]
    fn due(&self, ticket: u64) -> Option<Instant> {
        let rate = self.pace.rate.filter(|rate| *rate > 0.0)?;
        Some(self.started + Duration::from_secs_f64(ticket as f64 / rate))
    }
}

/// A tally stays good when a worker panics over it.
pub fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
