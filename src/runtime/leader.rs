//! Leader election over a `coordination.k8s.io/Lease`: of the replicas of one role, one writes.
//!
//! [`decide`] is the whole rule and is pure. As client-go does, a replica judges another's lease by
//! how long it has seen it unchanged, on its own clock, so that clocks need not agree.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{sync::watch, task::JoinHandle};

const LEASE_DURATION: Duration = Duration::from_secs(15);
const RENEW_INTERVAL: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// Stands for leadership until dropped or released.
#[derive(Debug)]
pub struct LeaderElection {
    leader: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl LeaderElection {
    /// Starts to stand for the lease `namespace/name` as `identity` (the pod's name).
    pub fn start(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let (sender, leader) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let candidate = Candidate {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
        };
        let task = tokio::spawn(candidate.run(sender, stopped));
        Self { leader, stop, task }
    }

    /// True while this process leads.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.leader.clone()
    }

    /// Gives the lease up, so that the next leader need not wait for it to expire.
    pub async fn release(mut self) {
        self.stop.send_replace(true);
        drop(tokio::time::timeout(Duration::from_secs(3), &mut self.task).await);
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

struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// The lease's resource version, and when we first saw it.
    seen: Option<(String, Instant)>,
}

impl Candidate {
    async fn run(mut self, leader: watch::Sender<bool>, mut stopped: watch::Receiver<bool>) {
        let mut renewed = Instant::now();
        while !*stopped.borrow() {
            match self.step().await {
                Ok(leads) => {
                    renewed = Instant::now();
                    announce(&leader, leads);
                }
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "cannot read or write the lease");
                    // Who cannot renew must stop before another may start.
                    if renewed.elapsed() + RENEW_INTERVAL >= LEASE_DURATION {
                        announce(&leader, false);
                    }
                }
            }
            let pause = if *leader.borrow() { RENEW_INTERVAL } else { RETRY_INTERVAL };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = stopped.changed() => if changed.is_err() { break },
            }
        }
        if leader.send_replace(false)
            && let Err(error) = self.release().await
        {
            tracing::debug!(lease = self.name, %error, "lease not released; it will expire");
        }
    }

    /// Reads the lease, takes or renews it where that is due. Whether we lead now.
    async fn step(&mut self) -> Result<bool, kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        let unchanged_for = self.observe(found.as_ref());
        let decision =
            decide(found.as_ref().and_then(|l| l.spec.as_ref()), &self.identity, unchanged_for);
        if decision == Decision::Wait {
            return Ok(false);
        }
        let lease = self.claim(found, decision);
        let written = if lease.metadata.resource_version.is_some() {
            self.leases.replace(&self.name, &PostParams::default(), &lease).await
        } else {
            self.leases.create(&PostParams::default(), &lease).await
        };
        match written {
            Ok(_) => Ok(true),
            // Someone was faster; look again next time.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
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
        self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
    }
}

fn announce(leader: &watch::Sender<bool>, leads: bool) {
    leader.send_if_modified(|current| {
        let changed = *current != leads;
        if changed {
            tracing::info!(leads, "leadership changed");
        }
        *current = leads;
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: Option<&str>) -> LeaseSpec {
        LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn decides_by_holder_and_age() {
        let (young, old) = (Duration::from_secs(3), Duration::from_secs(15));
        let cases = [
            ("no lease", None, young, Decision::Acquire),
            ("released", Some(held_by(None)), young, Decision::Acquire),
            ("released by an empty name", Some(held_by(Some(""))), young, Decision::Acquire),
            ("ours", Some(held_by(Some("me"))), old, Decision::Renew),
            ("another's, alive", Some(held_by(Some("you"))), young, Decision::Wait),
            ("another's, silent", Some(held_by(Some("you"))), old, Decision::Acquire),
        ];
        for (name, lease, age, want) in cases {
            assert_eq!(decide(lease.as_ref(), "me", age), want, "{name}");
        }
    }

    #[test]
    fn a_lease_without_a_duration_does_not_flap() {
        let spec = LeaseSpec { lease_duration_seconds: None, ..held_by(Some("you")) };
        assert_eq!(decide(Some(&spec), "me", Duration::ZERO), Decision::Wait);
    }
}
