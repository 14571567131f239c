//! The process of the simulated proxies.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use envoy_types::pb::envoy::{
    config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest,
};
use meshwright::xds::ResourceType;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

use crate::{light, process};

/// As Envoy: it never lets a server wait for a window.
const WINDOW: u32 = 256 << 20;
const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What the proxies of this process share.
struct Shared {
    bytes: AtomicU64,
    /// By version: names of endpoints in a cluster, of routes in a listener. All proxies get much
    /// the same, and it is not they who are measured.
    references: Mutex<HashMap<String, Arc<[String]>>>,
    events: mpsc::UnboundedSender<Event>,
}

enum Event {
    Settled,
    Endpoints(Duration),
}

#[tokio::main(flavor = "current_thread")]
pub async fn run(address: SocketAddr, proxies: usize, namespaces: usize) -> anyhow::Result<()> {
    let (events, mut received) = mpsc::unbounded_channel();
    let shared =
        Arc::new(Shared { bytes: AtomicU64::new(0), references: Mutex::default(), events });
    let (go, started) = watch::channel(false);
    for index in 0..proxies {
        let proxy = Proxy { index, namespaces, shared: shared.clone() };
        let mut started = started.clone();
        tokio::spawn(async move {
            drop(started.wait_for(|go| *go).await);
            if let Err(error) = proxy.run(address).await {
                drop(writeln!(std::io::stderr(), "proxy {index}: {error:#}"));
                std::process::exit(1);
            }
        });
    }
    let (commands, mut lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if commands.send(line).is_err() {
                return;
            }
        }
    });
    let mut out = std::io::stdout();
    while let Some(line) = lines.recv().await {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("go") => {
                go.send_replace(true);
                let mut left = proxies;
                while left > 0 {
                    left -= usize::from(matches!(received.recv().await, Some(Event::Settled)));
                }
                let bytes = shared.bytes.load(Ordering::Relaxed);
                let cpu = process::usage(None)?.cpu.as_secs_f64();
                writeln!(out, "{bytes} {cpu:.1}")?;
            }
            Some("change") => {
                let at = words.next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
                let mut latencies = Vec::with_capacity(proxies);
                while latencies.len() < proxies {
                    if let Some(Event::Endpoints(seen)) = received.recv().await {
                        let latency = seen.saturating_sub(Duration::from_nanos(at));
                        latencies.push(format!("{:.3}", latency.as_secs_f64() * 1000.0));
                    }
                }
                writeln!(out, "{}", latencies.join(" "))?;
            }
            _ => {}
        }
        out.flush()?;
    }
    Ok(())
}

struct Proxy {
    index: usize,
    namespaces: usize,
    shared: Arc<Shared>,
}

impl Proxy {
    async fn run(self, address: SocketAddr) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect()
            .await?;
        let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
        grpc.ready().await?;
        let (requests, stream) = mpsc::unbounded_channel();
        requests.send(self.first(ResourceType::Cluster))?;
        requests.send(self.first(ResourceType::Listener))?;
        let codec = ProstCodec::<DeltaDiscoveryRequest, light::Response>::default();
        let request = tonic::Request::new(UnboundedReceiverStream::new(stream));
        let path = http::uri::PathAndQuery::from_static(METHOD);
        let mut responses = grpc.streaming(request, path, codec).await?.into_inner();

        let mut waiting: HashSet<(ResourceType, String)> = HashSet::new();
        let mut seen: HashSet<ResourceType> = HashSet::new();
        let mut settled = false;
        while let Some(response) = responses.message().await? {
            let Some(kind) = ResourceType::from_type_url(&response.type_url) else { continue };
            self.shared.bytes.fetch_add(response.encoded_len() as u64, Ordering::Relaxed);
            if settled && kind == ResourceType::Endpoints {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.shared.events.send(Event::Endpoints(now))?;
            }
            seen.insert(kind);
            let names = response.resources.iter().map(|r| r.name.clone());
            for name in names.chain(response.removed_resources.iter().cloned()) {
                waiting.remove(&(kind, name));
            }
            requests.send(acknowledge(&response))?;
            self.subscribe(kind, &response, &mut waiting, &requests)?;
            let both = [ResourceType::Cluster, ResourceType::Listener];
            if !settled && waiting.is_empty() && both.iter().all(|kind| seen.contains(kind)) {
                settled = true;
                self.shared.events.send(Event::Settled)?;
            }
        }
        anyhow::bail!("the server ended the stream")
    }

    fn first(&self, kind: ResourceType) -> DeltaDiscoveryRequest {
        let namespace = format!("namespace-{}", self.index % self.namespaces);
        let (high, low) = (self.index / 250, self.index % 250 + 1);
        let id = format!(
            "sidecar~10.200.{high}.{low}~proxy-{}.{namespace}~{namespace}.svc.cluster.local",
            self.index
        );
        let node = (kind == ResourceType::Cluster).then(|| Node {
            id,
            cluster: format!("proxy.{namespace}"),
            ..Node::default()
        });
        DeltaDiscoveryRequest {
            node,
            type_url: kind.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    /// Asks for what the response refers to, as Envoy would.
    fn subscribe(
        &self,
        kind: ResourceType,
        response: &light::Response,
        waiting: &mut HashSet<(ResourceType, String)>,
        requests: &mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    ) -> anyhow::Result<()> {
        let referred = match kind {
            ResourceType::Cluster => ResourceType::Endpoints,
            ResourceType::Listener => ResourceType::Route,
            _ => return Ok(()),
        };
        let mut names = HashSet::new();
        for resource in &response.resources {
            names.extend(self.references(kind, resource).iter().cloned());
        }
        if names.is_empty() {
            return Ok(());
        }
        waiting.extend(names.iter().map(|name| (referred, name.clone())));
        requests.send(DeltaDiscoveryRequest {
            type_url: referred.type_url().to_owned(),
            resource_names_subscribe: names.into_iter().collect(),
            ..DeltaDiscoveryRequest::default()
        })?;
        Ok(())
    }

    fn references(&self, kind: ResourceType, resource: &light::Resource) -> Arc<[String]> {
        let mut known = self.shared.references.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{kind:?} {} {}", resource.name, resource.version);
        let found = known.entry(key).or_insert_with(|| {
            let body = resource.resource.as_ref().map(|any| any.value.clone()).unwrap_or_default();
            if kind == ResourceType::Cluster { endpoints_of(body) } else { routes_of(body) }
        });
        found.clone()
    }
}

fn acknowledge(response: &light::Response) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn endpoints_of(body: bytes::Bytes) -> Arc<[String]> {
    let cluster = light::Cluster::decode(body).unwrap_or_default();
    let name = |eds: light::Eds| {
        if eds.service_name.is_empty() { cluster.name } else { eds.service_name }
    };
    cluster.eds.map(name).into_iter().collect()
}

fn routes_of(body: bytes::Bytes) -> Arc<[String]> {
    let listener = light::Listener::decode(body).unwrap_or_default();
    let chains = listener.filter_chains.into_iter().chain(listener.default_filter_chain);
    let managers = chains
        .flat_map(|chain| chain.filters)
        .filter(|filter| filter.name.contains("http_connection_manager"))
        .filter_map(|filter| light::ConnectionManager::decode(filter.typed_config?.value).ok());
    managers.filter_map(|manager| Some(manager.rds?.route_config_name)).collect()
}
