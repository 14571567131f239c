//! Proof that redirection works: connections of our own, and where they end up.
//!
//! What arrives is not asked for the address that it wanted, for which the kernel has no safe call: we
//! listen on the proxy's ports ourselves for a moment and know our own connections by their ports.
//!
//! Inbound connections cannot be proven from inside, as what the pod sends to itself takes another
//! way. For them the rules that the kernel lists are counted when they are put in place.

mod attempt;
mod listen;
mod suspects;
mod target;

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use target::{Route, User, targets};

use self::listen::Listeners;
use crate::redirect::{Family, Protocol, RedirectPlan, apply, rules::PREFIX};

/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often `--check` asks.
const PERIOD: Duration = Duration::from_millis(250);

/// A connection to try, and where it must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub family: Family,
    pub what: What,
    pub address: SocketAddr,
    /// The local port.
    pub arrives: u16,
}

/// What a connection proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Outbound,
    /// The proxy to its own pod.
    Inbound,
    Dns(Protocol),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.family == Family::V4 { "IPv4" } else { "IPv6" };
        let address = self.address;
        match self.what {
            What::Outbound => write!(f, "an outbound {family} connection to {address}"),
            What::Inbound => write!(f, "an inbound {family} connection to {address}"),
            What::Dns(Protocol::Tcp) => write!(f, "a DNS connection over {family} to {address}"),
            What::Dns(Protocol::Udp) => write!(f, "a DNS question over {family} to {address}"),
        }
    }
}

/// Where a connection ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// At this local port.
    At(u16),
    /// Somewhere else, where somebody took it.
    Elsewhere,
    Refused,
    NoAnswer,
    /// It did not even begin.
    Failed(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(port) => write!(f, "it came to port {port}"),
            Self::Elsewhere => f.write_str("somebody else took it"),
            Self::Refused => f.write_str("it was refused"),
            Self::NoAnswer => {
                write!(f, "nobody answered within {} s", PATIENCE.as_secs())
            }
            Self::Failed(error) => write!(f, "it failed: {error}"),
        }
    }
}

/// Why redirection is not proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the rules are in place, but do not redirect: {target} must come to port {}, but {seen}. \
         {hint}. `meshwright redirect --dry-run` prints the rules that should hold; --no-probe \
         starts the pod regardless", target.arrives
    )]
    Misled { target: Target, seen: Seen, hint: String },
    #[error(
        "this pod's traffic is not redirected after {waited} s: {target} must come to port {}, but \
         {seen}. In this pod the node's CNI plugin redirects, so look for its DaemonSet \
         meshwright-cni on node {node}: `kubectl get pods --all-namespaces --field-selector \
         spec.nodeName={node} -l app.kubernetes.io/name=meshwright-cni`, then `kubectl logs` of that \
         pod. The plugin redirects a pod when it starts: if it was installed later, delete the pod",
        target.arrives
    )]
    NotYet { waited: u64, target: Target, seen: Seen, node: String },
}

/// Proves the plan with all that can be tried here. Returns what was proven.
pub fn prove(plan: &RedirectPlan, families: &[Family]) -> Result<Vec<Target>, Error> {
    let targets = targets(plan, families, User::own(), target::route);
    let listeners = Listeners::of(plan, families);
    let mut proven = Vec::new();
    for target in targets {
        if !listeners.on(target.family, target.what, target.arrives) {
            let port = target.arrives;
            tracing::info!(port, "not probed: the port is taken, by the proxy it seems");
            continue;
        }
        match attempt::attempt(&target, &listeners, PATIENCE) {
            Seen::At(port) if port == target.arrives => proven.push(target),
            seen => {
                let hint = suspects::hint(&target, &seen);
                return Err(Error::Misled { target, seen, hint });
            }
        }
    }
    Ok(proven)
}

/// Waits until somebody else's rules redirect. Asks by the connection that always is, so neither who
/// asks nor what is captured matters.
pub fn wait(plan: &RedirectPlan, timeout: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    let families = apply::families();
    let listeners = Listeners::of(plan, families);
    let targets: Vec<Target> =
        families.iter().map(|family| target::anybodys(plan, *family)).collect();
    loop {
        let misled = targets.iter().find_map(|target| {
            let seen = attempt::attempt(target, &listeners, PATIENCE);
            // Where the proxy listens already, its answer is as good as ours.
            let listens = listeners.on(target.family, target.what, target.arrives);
            let arrived = if listens { Seen::At(target.arrives) } else { Seen::Elsewhere };
            (seen != arrived).then_some((*target, seen))
        });
        let Some((target, seen)) = misled else { return Ok(()) };
        if begun.elapsed() >= timeout {
            let node = std::env::var("NODE_NAME").unwrap_or_else(|_| "NODE".to_owned());
            return Err(Error::NotYet { waited: timeout.as_secs(), target, seen, node });
        }
        tracing::debug!(%target, %seen, "not redirected yet");
        std::thread::sleep(PERIOD.min(timeout.saturating_sub(begun.elapsed())));
    }
}

/// Whether a name of a chain or table is one of ours.
fn is_ours(text: &str) -> bool {
    text.contains(PREFIX) || text.contains("meshwright")
}
