//! A control plane that serves hosts and a pod's state, and can be stopped and started again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use envoy_types::pb::{
    envoy::service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
        aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
    },
    google::protobuf::Any,
};
use meshwright::{
    ca::{self, Authority},
    runtime::tls::{LiveTls, serve},
    xds::names::{HOST_TYPE_URL, POD_TYPE_URL},
};
use prost::Message;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::ads::{Ads, Converse, Responses};

/// Encoded resources by type and name, with their versions.
pub type Resources = BTreeMap<(&'static str, String), (u32, Vec<u8>)>;

/// What a client said.
#[derive(Clone, Debug)]
pub struct Heard {
    pub identity: String,
    pub request: DeltaDiscoveryRequest,
}

/// What outlives a server.
#[derive(Clone)]
pub struct World {
    pub resources: watch::Sender<Resources>,
    pub heard: Arc<Mutex<Vec<Heard>>>,
}

impl World {
    pub fn new() -> Self {
        Self { resources: watch::Sender::default(), heard: Arc::default() }
    }

    pub fn put(&self, kind: &'static str, name: &str, message: &impl Message) {
        self.put_bytes(kind, name, message.encode_to_vec());
    }

    pub fn put_bytes(&self, kind: &'static str, name: &str, bytes: Vec<u8>) {
        self.resources.send_modify(|resources| {
            let entry = resources.entry((kind, name.to_owned())).or_default();
            *entry = (entry.0 + 1, bytes);
        });
    }

    pub fn remove(&self, kind: &'static str, name: &str) {
        self.resources.send_modify(|resources| drop(resources.remove(&(kind, name.to_owned()))));
    }

    /// The requests that open a stream.
    pub fn opened(&self) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|heard| heard.request.response_nonce.is_empty()).cloned().collect()
    }
}

pub struct Server {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub async fn start(authority: &Authority, world: World, port: u16) -> Server {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let names = ["127.0.0.1".to_owned()];
    let config = ca::tls::server_config(authority, &names, OffsetDateTime::now_utc()).unwrap();
    let (stop, stopped) = oneshot::channel();
    let (gone, _) = watch::channel(false);
    let service = AggregatedDiscoveryServiceServer::new(Ads(Serving { world, gone: gone.clone() }));
    let router = tonic::service::Routes::new(service).into_axum_router();
    let shutdown = async move {
        drop(stopped.await);
        gone.send_replace(true);
    };
    let task = tokio::spawn(serve(listener, Arc::new(LiveTls::new(config)), router, shutdown));
    Server { address, stop, task }
}

impl Server {
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

struct Serving {
    world: World,
    gone: watch::Sender<bool>,
}

impl Converse for Serving {
    fn converse(
        &self,
        identity: String,
        requests: Streaming<DeltaDiscoveryRequest>,
    ) -> Responses<DeltaDiscoveryResponse> {
        let (sender, receiver) = mpsc::channel(8);
        let (world, mut gone) = (self.world.clone(), self.gone.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                () = converse(world, identity, requests, sender) => {}
                _ = gone.wait_for(|gone| *gone) => {}
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

/// What the client of one stream has, by type and name.
type Held = BTreeMap<(&'static str, String), String>;

async fn converse(
    world: World,
    identity: String,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    sender: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
) {
    let mut resources = world.resources.subscribe();
    let (mut held, mut subscribed) = (Held::new(), BTreeMap::new());
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                world.heard.lock().unwrap().push(Heard { identity: identity.clone(), request: request.clone() });
                let kind = [HOST_TYPE_URL, POD_TYPE_URL].into_iter().find(|k| *k == request.type_url).unwrap();
                for (name, version) in request.initial_resource_versions {
                    held.insert((kind, name), version);
                }
                if !request.resource_names_subscribe.is_empty() {
                    subscribed.insert(kind, request.resource_names_subscribe);
                }
            }
            changed = resources.changed() => if changed.is_err() { return },
        }
        let wanted = resources.borrow_and_update().clone();
        for (kind, names) in &subscribed {
            let Some(response) = difference(kind, names, &wanted, &mut held) else { continue };
            if sender.send(Ok(response)).await.is_err() {
                return;
            }
        }
    }
}

fn difference(
    kind: &'static str,
    names: &[String],
    wanted: &Resources,
    held: &mut Held,
) -> Option<DeltaDiscoveryResponse> {
    let covers = |name: &String| names.iter().any(|n| n == "*" || n == name);
    let mut response = DeltaDiscoveryResponse {
        type_url: kind.to_owned(),
        nonce: "some".to_owned(),
        ..DeltaDiscoveryResponse::default()
    };
    for (key, (version, bytes)) in wanted {
        let version = version.to_string();
        if key.0 == kind && covers(&key.1) && held.get(key) != Some(&version) {
            response.resources.push(Resource {
                name: key.1.clone(),
                version: version.clone(),
                resource: Some(Any { type_url: kind.to_owned(), value: bytes.clone() }),
                ..Resource::default()
            });
            held.insert(key.clone(), version);
        }
    }
    held.retain(|key, _| {
        let keep = key.0 != kind || wanted.contains_key(key);
        if !keep {
            response.removed_resources.push(key.1.clone());
        }
        keep
    });
    let empty = response.resources.is_empty() && response.removed_resources.is_empty();
    (!empty).then_some(response)
}
