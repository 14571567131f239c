//! Finds the control planes of all revisions and listens to each: every replica knows its own share
//! of the proxies.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::task::{AbortHandle, JoinSet};

use super::{
    Fleet,
    connection::{self, Credentials},
    reports::Source,
};
use crate::{
    api::meshwright::labels::DEFAULT_REVISION,
    operator::{context::Backoff, platform::Platform},
};

/// Of the port of a control plane's Service on which it reports.
const PORT: &str = "tls-xds";
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// How soon a control plane that could not be asked is asked again, at most.
const LAST_RETRY: Duration = Duration::from_secs(15);

/// One replica of a control plane.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ControlPlane {
    pub(super) revision: String,
    pub(super) address: SocketAddr,
    /// Name of the pod, for people.
    pod: String,
}

impl ControlPlane {
    /// What tells it from others.
    fn source(&self) -> Source {
        format!("{} ({})", self.pod, self.address).into()
    }
}

/// Keeps the fleet told of what control planes say. Does not return.
pub(super) async fn follow(client: &Client, namespace: &str, fleet: &Fleet) {
    let Some(token) = fleet.token() else {
        tracing::info!(
            "control planes are not asked about their proxies: no --token-file is given, as in an operator outside the cluster"
        );
        let mute = "the operator has no token to ask control planes with (--token-file)";
        fleet.change(|known| known.mute = Some(mute));
        return std::future::pending().await;
    };
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    let config = watcher::Config::default().labels(SERVICE_LABEL);
    let mut events = std::pin::pin!(watcher::watcher(slices, config).default_backoff());
    let mut slices = Slices::default();
    let mut listeners = Listeners::new(client.clone(), namespace, token, fleet.clone());
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => if slices.see(event) {
                    listeners.listen_to(&slices.control_planes());
                },
                Some(Err(error)) => tracing::warn!(%error, "cannot watch control planes"),
                None => return,
            },
            Some(_) = listeners.tasks.join_next() => {}
        }
    }
}

/// The control planes in each EndpointSlice.
#[derive(Default)]
struct Slices {
    known: BTreeMap<String, Vec<ControlPlane>>,
    listing: BTreeMap<String, Vec<ControlPlane>>,
}

impl Slices {
    /// Returns whether the whole is known and may be another than before.
    fn see(&mut self, event: Event<EndpointSlice>) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                return false;
            }
            Event::InitApply(slice) => {
                self.listing.insert(slice.name_any(), control_planes(&slice));
                return false;
            }
            Event::InitDone => self.known = std::mem::take(&mut self.listing),
            Event::Apply(slice) => {
                self.known.insert(slice.name_any(), control_planes(&slice));
            }
            Event::Delete(slice) => {
                self.known.remove(&slice.name_any());
            }
        }
        true
    }

    fn control_planes(&self) -> BTreeSet<ControlPlane> {
        self.known.values().flatten().cloned().collect()
    }
}

/// Replicas of a control plane that serve. One that is on its way out has streams to the end.
fn control_planes(slice: &EndpointSlice) -> Vec<ControlPlane> {
    let service = slice.labels().get(SERVICE_LABEL).map(String::as_str).unwrap_or_default();
    let Some(revision) = revision(service) else { return Vec::new() };
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find(|port| port.name.as_deref() == Some(PORT)).and_then(|port| port.port);
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let endpoints = slice.endpoints.iter().filter(|endpoint| {
        endpoint.conditions.as_ref().and_then(|conditions| conditions.serving) != Some(false)
    });
    endpoints
        .filter_map(|endpoint| {
            let address = endpoint.addresses.first()?.parse().ok()?;
            let pod = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
            Some(ControlPlane {
                revision: revision.to_owned(),
                address: SocketAddr::new(address, port),
                pod: pod.unwrap_or_default(),
            })
        })
        .collect()
}

/// The revision whose control plane has a Service of this name.
fn revision(service: &str) -> Option<&str> {
    let default = Platform::control_plane_name(DEFAULT_REVISION);
    match service.strip_prefix(&default)? {
        "" => Some(DEFAULT_REVISION),
        rest => rest.strip_prefix('-'),
    }
}

/// A task for each control plane. Dropped, all of them end.
struct Listeners {
    credentials: Arc<Credentials>,
    fleet: Fleet,
    running: HashMap<ControlPlane, AbortHandle>,
    tasks: JoinSet<()>,
}

impl Listeners {
    fn new(client: Client, namespace: &str, token: &Path, fleet: Fleet) -> Self {
        let namespace = namespace.to_owned();
        Self {
            credentials: Arc::new(Credentials { client, namespace, token: token.to_owned() }),
            fleet,
            running: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// These and no others.
    fn listen_to(&mut self, wanted: &BTreeSet<ControlPlane>) {
        self.running.retain(|control_plane, task| {
            let keep = wanted.contains(control_plane);
            if !keep {
                task.abort();
            }
            keep
        });
        let sources: Vec<_> = wanted.iter().map(|c| (c.source(), c.revision.clone())).collect();
        self.fleet.set_sources(sources.iter().map(|(s, revision)| (s, revision.as_str())));
        for control_plane in wanted {
            if !self.running.contains_key(control_plane) {
                let task =
                    listen(control_plane.clone(), self.credentials.clone(), self.fleet.clone());
                self.running.insert(control_plane.clone(), self.tasks.spawn(task));
            }
        }
    }
}

/// Listens to one control plane for ever.
async fn listen(control_plane: ControlPlane, credentials: Arc<Credentials>, fleet: Fleet) {
    let source = control_plane.source();
    let backoff = Backoff::default();
    loop {
        let mut heard = false;
        let hear = |line| {
            heard = true;
            fleet.hear(&source, line);
        };
        let ended = connection::listen(&control_plane, &credentials, hear).await;
        if heard {
            backoff.reset(&source);
        }
        if let Err(error) = ended {
            let reason = connection::with_causes(&error);
            tracing::debug!(control_plane = %source, %reason, "cannot listen");
            fleet.change(|known| known.reports.lose(&source, reason));
        }
        tokio::time::sleep(backoff.next(&source).min(LAST_RETRY)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(name: &str, service: &str, endpoints: &Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {SERVICE_LABEL: service}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http-metrics", "port": 15014}, {"name": PORT, "port": 15012}],
        }))
        .unwrap()
    }

    fn endpoint(address: &str, serving: Option<bool>) -> Value {
        json!({
            "addresses": [address],
            "conditions": {"serving": serving},
            "targetRef": {"kind": "Pod", "name": format!("pod-{address}")},
        })
    }

    fn shown(slices: &Slices) -> Vec<String> {
        let show = |c: &ControlPlane| format!("{} {}", c.revision, c.source());
        slices.control_planes().iter().map(show).collect()
    }

    #[test]
    fn every_serving_replica_of_every_revision_is_asked() {
        let two = json!([endpoint("10.0.0.1", Some(true)), endpoint("10.0.0.2", None)]);
        let mut slices = Slices::default();
        assert!(!slices.see(Event::Init));
        assert!(!slices.see(Event::InitApply(slice("a", "meshwright-control-plane", &two))));
        assert!(slices.see(Event::InitDone));
        assert_eq!(
            shown(&slices),
            ["default pod-10.0.0.1 (10.0.0.1:15012)", "default pod-10.0.0.2 (10.0.0.2:15012)"]
        );
        let canary = json!([endpoint("10.0.0.3", Some(true)), endpoint("10.0.0.4", Some(false))]);
        slices.see(Event::Apply(slice("b", "meshwright-control-plane-canary", &canary)));
        assert_eq!(shown(&slices)[0], "canary pod-10.0.0.3 (10.0.0.3:15012)");
        assert_eq!(shown(&slices).len(), 3);
        slices.see(Event::Delete(slice("a", "meshwright-control-plane", &two)));
        assert_eq!(shown(&slices), ["canary pod-10.0.0.3 (10.0.0.3:15012)"]);
        for other in ["meshwright-operator", "meshwright-control-planet"] {
            slices.see(Event::Apply(slice("c", other, &two)));
            assert_eq!(shown(&slices).len(), 1, "{other}");
        }
    }

    #[test]
    fn an_empty_list_says_that_there_are_none() {
        let mut slices = Slices::default();
        slices.see(Event::Init);
        assert!(slices.see(Event::InitDone));
        assert!(shown(&slices).is_empty());
    }
}
