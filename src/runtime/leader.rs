//! Leader election over a `coordination.k8s.io/Lease`: of the replicas of one role, one writes.
//!
//! [`decide`] is the whole rule and is pure. As client-go does, a replica judges another's lease by
//! how long it has seen it unchanged, on its own clock, so that clocks need not agree.
//!
//! A leader believes in itself only as long as nobody else may lead: [`RENEW_DEADLINE`] from the
//! moment at which it began its last successful renewal. What it does with a client of its [`Fence`]
//! ends then, even if the election itself is stuck in a call.

mod fence;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use self::fence::Office;
pub use self::fence::{Deposed, Fence};

/// How long others wait for a leader that went silent. With two looks of [`RETRY_INTERVAL`] and the
/// start of the controllers this keeps a failover under 15 s.
const LEASE_DURATION: Duration = Duration::from_secs(10);
/// When a leader that cannot renew stops. What it has sent by then has [`LEASE_DURATION`] minus this
/// to arrive before another leads.
const RENEW_DEADLINE: Duration = Duration::from_secs(7);
const RENEW_INTERVAL: Duration = Duration::from_secs(3);
/// How often those who do not lead look. A lease that was given up is taken within this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// A call that hangs must leave time for another within [`RENEW_DEADLINE`].
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Others may write to the lease too (labels, say), but not all the time.
const ATTEMPTS: usize = 3;

/// Stands for leadership until dropped or released.
#[derive(Debug)]
pub struct LeaderElection {
    office: Arc<Office>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LeaderElection {
    /// Starts to stand for the lease `namespace/name` as `identity` (the pod's name).
    pub fn start(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let office = Arc::new(Office::default());
        let (stop, stopped) = watch::channel(false);
        let candidate = Candidate {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            office: office.clone(),
            seen: None,
            held: None,
        };
        let task = tokio::spawn(candidate.run(stopped));
        Self { office, stop, task }
    }

    /// True while this process leads.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.office.subscribe()
    }

    /// What keeps a deposed leader from writing.
    pub fn fence(&self) -> Fence {
        Fence::new(self.office.clone())
    }

    /// Stops leading, then gives the lease up, so that the next leader need not wait for it to expire.
    pub async fn release(mut self) {
        self.office.leave();
        self.stop.send_replace(true);
        drop(timeout(CALL_TIMEOUT, &mut self.task).await);
    }
}

/// Leadership without an election: for processes that are alone by construction.
pub fn always() -> watch::Receiver<bool> {
    watch::channel(true).1
}

/// What to do about a lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is ours: say that we live.
    Renew,
    /// Nobody holds it, or its holder is gone.
    Acquire,
    /// Someone else leads.
    Wait,
}

/// Decides from the lease's holder and how long the lease has been seen unchanged.
pub fn decide(lease: Option<&LeaseSpec>, identity: &str, unchanged_for: Duration) -> Decision {
    let Some(spec) = lease else { return Decision::Acquire };
    match spec.holder_identity.as_deref() {
        None | Some("") => Decision::Acquire,
        Some(holder) if holder == identity => Decision::Renew,
        Some(_) => {
            let seconds = spec.lease_duration_seconds.unwrap_or(0).max(1);
            let duration = Duration::from_secs(u64::from(seconds.unsigned_abs()));
            if unchanged_for >= duration { Decision::Acquire } else { Decision::Wait }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("somebody else keeps writing to it")]
    Contended,
}

struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    office: Arc<Office>,
    /// The lease's resource version, and when we first saw it.
    seen: Option<(String, Instant)>,
    /// The lease as we last wrote it, so that a renewal is one call.
    held: Option<Lease>,
}

impl Candidate {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let pause = tokio::select! {
                pause = self.turn() => pause,
                _ = stopped.wait_for(|stop| *stop) => break,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        self.office.leave();
        if let Err(error) = self.release().await {
            tracing::debug!(lease = self.name, %error, "lease not released; it will expire");
        }
    }

    /// One look at the lease and what follows from it. How long to wait before the next.
    async fn turn(&mut self) -> Duration {
        let began = Instant::now();
        let time = self.time_left().unwrap_or(CALL_TIMEOUT).min(CALL_TIMEOUT);
        match timeout(time, self.step()).await.unwrap_or(Err(Error::Timeout)) {
            Ok(true) => {
                self.office.enter(began + RENEW_DEADLINE);
                return RENEW_INTERVAL;
            }
            Ok(false) => self.office.leave(),
            Err(error) => {
                tracing::warn!(lease = self.name, %error, "cannot read or write the lease");
            }
        }
        self.time_left().map_or(RETRY_INTERVAL, |left| left.min(RETRY_INTERVAL))
    }

    /// How long we may still lead. Who cannot renew must stop before another may start.
    fn time_left(&self) -> Option<Duration> {
        let left = self.office.left();
        if left.is_none() {
            self.office.leave();
        }
        left
    }

    /// Takes or renews the lease where that is due. Whether we lead now.
    async fn step(&mut self) -> Result<bool, Error> {
        if let Some(held) = self.held.take()
            && self.write(Some(held), Decision::Renew).await?
        {
            return Ok(true);
        }
        for _ in 0..ATTEMPTS {
            let found = self.leases.get_opt(&self.name).await?;
            let unchanged_for = self.observe(found.as_ref());
            let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
            let decision = decide(spec, &self.identity, unchanged_for);
            if decision == Decision::Wait {
                return Ok(false);
            }
            if self.write(found, decision).await? {
                return Ok(true);
            }
            // Whoever takes the lease before us leads; whether that happened, the next look tells.
        }
        Err(Error::Contended)
    }

    /// Writes the lease as ours over what was found; false if it is no longer what was found.
    async fn write(&mut self, found: Option<Lease>, decision: Decision) -> Result<bool, Error> {
        let lease = self.claim(found, decision);
        let written = if lease.metadata.resource_version.is_some() {
            self.leases.replace(&self.name, &PostParams::default(), &lease).await
        } else {
            self.leases.create(&PostParams::default(), &lease).await
        };
        match written {
            Ok(lease) => {
                self.held = Some(lease);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn observe(&mut self, lease: Option<&Lease>) -> Duration {
        let version = lease.and_then(|l| l.metadata.resource_version.clone()).unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed(),
            _ => {
                self.seen = Some((version, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn claim(&self, found: Option<Lease>, decision: Decision) -> Lease {
        let mut lease = found.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_default();
        let now = MicroTime(Timestamp::now());
        if decision == Decision::Acquire {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n + 1));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(LEASE_DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}
