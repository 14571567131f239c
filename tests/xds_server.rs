//! The xDS server over real connections: plaintext and mutual TLS.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/fleet.rs"]
mod fleet;

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use fleet::driven;
use meshwright::{
    control_plane::Fleet,
    runtime::{self, tls},
    watch::{Changes, Mailbox, Snapshot, from_yaml},
    xds::{ResourceType, server::Server},
};
use prometheus_client::registry::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

const CLUSTER: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: cart}, ports: [{port: 80, name: http}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-x, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{name: http, port: 8080}]
";

struct Running {
    address: SocketAddr,
    mailbox: Mailbox,
    fleet: Fleet,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

fn snapshot(text: &str) -> Snapshot {
    from_yaml(text).unwrap()
}

async fn start(secured: bool) -> Running {
    runtime::install_crypto_provider();
    let (mailbox, fleet) = driven(CLUSTER, &mut Registry::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::new(Arc::new(fleet.clone()));
    // Without TLS on the wire, but served as over TLS: nobody shows a certificate.
    let server = if secured { server } else { server.plaintext() };
    let (stop, stopped) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    let serving = tokio::spawn(tls::serve_plaintext(listener, server.router(), stopped));
    Running { address, mailbox, fleet, stop, serving }
}

fn node() -> Node {
    let id = "sidecar~10.0.0.9~web-0.shop~shop.svc.cluster.local".to_owned();
    Node { id, cluster: "web.shop".to_owned(), ..Node::default() }
}

async fn connect(address: SocketAddr) -> AggregatedDiscoveryServiceClient<Channel> {
    let channel =
        Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    AggregatedDiscoveryServiceClient::new(channel)
}

struct Client {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    async fn new(address: SocketAddr) -> Self {
        let (requests, stream) = mpsc::unbounded_channel();
        let stream = UnboundedReceiverStream::new(stream);
        let responses = connect(address).await.delta_aggregated_resources(stream).await.unwrap();
        Self { requests, responses: responses.into_inner() }
    }

    fn ask(&self, kind: ResourceType, names: &[&str]) {
        let request = DeltaDiscoveryRequest {
            node: Some(node()),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).unwrap();
    }

    async fn next(&mut self) -> DeltaDiscoveryResponse {
        self.responses.message().await.unwrap().unwrap()
    }
}

/// A stream would last as long as its proxy: a control plane that leaves ends it, so that the proxy
/// looks for another replica, and need not be cut off to do so.
#[tokio::test]
async fn a_control_plane_that_leaves_says_so_and_ends() {
    let running = start(false).await;
    let mut client = Client::new(running.address).await;
    client.ask(ResourceType::Cluster, &[]);
    client.next().await;
    running.stop.send(()).unwrap();
    let ended = client.responses.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("stopping"), "{ended}");
    running.serving.await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn an_endpoint_change_arrives_alone() {
    let running = start(false).await;
    let mut client = Client::new(running.address).await;
    client.ask(ResourceType::Cluster, &[]);
    let clusters = client.next().await;
    assert!(clusters.resources.iter().any(|r| r.name.contains("cart.shop")), "{clusters:?}");
    let name = "80|cart.shop.svc.cluster.local";
    client.ask(ResourceType::Endpoints, &[name]);
    assert_eq!(client.next().await.resources[0].name, name);

    let moved = snapshot(&CLUSTER.replace("10.0.0.1", "10.0.0.2"));
    let key = meshwright::watch::Key::new("shop", "cart");
    let changes = Changes { endpoints_of: [key].into(), ..Changes::default() };
    running.mailbox.put(moved, changes);
    let update = client.next().await;
    assert_eq!(update.type_url, ResourceType::Endpoints.type_url());
    assert_eq!(update.resources.len(), 1);
}

#[tokio::test]
async fn a_new_service_reaches_a_connected_proxy() {
    let running = start(false).await;
    let mut client = Client::new(running.address).await;
    client.ask(ResourceType::Cluster, &[]);
    client.next().await;
    let more =
        CLUSTER.to_owned() + "---" + &CLUSTER.replace("cart", "web").replace("96.0.1", "96.0.2");
    running.mailbox.put(snapshot(&more), Changes::all());
    let update = client.next().await;
    let names: Vec<_> = update.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["outbound|80||web.shop.svc.cluster.local"]);
}

#[tokio::test]
async fn state_of_the_world_is_served_too() {
    let running = start(false).await;
    let request = DiscoveryRequest {
        node: Some(node()),
        type_url: ResourceType::Listener.type_url().to_owned(),
        ..DiscoveryRequest::default()
    };
    let stream = tokio_stream::StreamExt::merge(
        tokio_stream::once(request),
        tokio_stream::pending::<DiscoveryRequest>(),
    );
    let mut client = connect(running.address).await;
    let mut responses = client.stream_aggregated_resources(stream).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    assert!(!response.resources.is_empty() && !response.version_info.is_empty());
}

#[tokio::test]
async fn a_refusal_is_known_until_the_proxy_leaves() {
    let running = start(false).await;
    let mut client = Client::new(running.address).await;
    client.ask(ResourceType::Cluster, &[]);
    let clusters = client.next().await;
    let mut refusals = running.fleet.refusals();
    let refused = "outbound|80||cart.shop.svc.cluster.local";
    let error = envoy_types::pb::google::rpc::Status {
        message: format!("Error adding/updating cluster(s) {refused}: no"),
        ..Default::default()
    };
    let request = DeltaDiscoveryRequest {
        type_url: clusters.type_url,
        response_nonce: clusters.nonce,
        error_detail: Some(error),
        ..DeltaDiscoveryRequest::default()
    };
    client.requests.send(request).unwrap();
    refusals.changed().await.unwrap();
    let known = running.fleet.refused();
    assert_eq!((known.len(), &*known[0].rejection.name), (1, refused));
    drop(client);
    refusals.changed().await.unwrap();
    assert!(running.fleet.refused().is_empty());
}

async fn refusal(address: SocketAddr, request: DeltaDiscoveryRequest) -> tonic::Status {
    let (requests, stream) = mpsc::unbounded_channel();
    requests.send(request).unwrap();
    let stream = UnboundedReceiverStream::new(stream);
    let mut client = connect(address).await;
    match client.delta_aggregated_resources(stream).await {
        Ok(responses) => responses.into_inner().message().await.unwrap_err(),
        Err(status) => status,
    }
}

#[tokio::test]
async fn who_shows_no_certificate_gets_nothing() {
    let running = start(true).await;
    let request = DeltaDiscoveryRequest { node: Some(node()), ..DeltaDiscoveryRequest::default() };
    let status = refusal(running.address, request).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[tokio::test]
async fn a_request_without_a_node_is_refused_with_a_sentence() {
    let running = start(false).await;
    let status = refusal(running.address, DeltaDiscoveryRequest::default()).await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "the first request names no node");
}
