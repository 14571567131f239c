//! xDS over mutual TLS: a proxy gets the configuration of pods of its own identity, no other's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/fleet.rs"]
mod fleet;

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use fleet::driven;
use hyper_util::rt::TokioIo;
use meshwright::{
    ca::{self, Authority, Serial, Validity, certificates_in_pem},
    control_plane::Fleet,
    runtime::{
        self,
        tls::{LiveTls, serve},
    },
    watch::{Changes, Key, Mailbox, from_yaml},
    xds::{ResourceType, names, server::Server},
};
use prometheus_client::registry::Registry;
use prost::Message;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::PrivateKeyDer};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

const SERVER: &str = "control-plane.test";
const CLUSTER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec:
  serviceAccountName: web
  restartPolicy: Never
  containers: [{name: meshwright-proxy}, {name: work}]
status:
  podIP: 10.0.0.9
  containerStatuses: [{name: work, state: {running: {}}}]
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{port: 5432, name: tcp}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-x, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1]}]
ports: [{name: tcp, port: 5432}]
";

struct Running {
    address: SocketAddr,
    mailbox: Mailbox,
    fleet: Fleet,
    registry: Registry,
}

async fn start(authority: &Authority) -> Running {
    let mut registry = Registry::default();
    let (mailbox, fleet) = driven(CLUSTER, &mut registry).await;
    let now = OffsetDateTime::now_utc();
    let config = ca::tls::server_config(authority, &[SERVER.to_owned()], now).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::new(Arc::new(fleet.clone())).router();
    let tls = Arc::new(LiveTls::new(config));
    tokio::spawn(serve(listener, tls, router, std::future::pending()));
    Running { address, mailbox, fleet, registry }
}

/// A client with the certificate of `identity`, or with none.
fn client(authority: &Authority, identity: Option<&str>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).unwrap();
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = KeyPair::generate().unwrap();
            let request = CertificateParams::default().serialize_request(&key).unwrap();
            let now = OffsetDateTime::now_utc();
            let validity = Validity::starting(now, std::time::Duration::from_hours(1));
            let (serial, identity) = (Serial::random().unwrap(), identity.parse().unwrap());
            let request = request.pem().unwrap();
            let leaf = ca::issue(&request, &identity, serial, validity, authority).unwrap();
            let chain = certificates_in_pem(&leaf, "the leaf").unwrap();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn connect(address: SocketAddr, config: ClientConfig) -> Channel {
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = SERVER.try_into().unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://control-plane.test")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

/// The first listener that the pod shop/web-0 is sent, or why there is none.
async fn ask(address: SocketAddr, config: ClientConfig) -> Result<String, tonic::Status> {
    let request = DeltaDiscoveryRequest {
        node: Some(Node {
            id: "sidecar~10.0.0.9~web-0.shop~shop.svc.cluster.local".to_owned(),
            ..Node::default()
        }),
        type_url: ResourceType::Listener.type_url().to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let requests = tokio_stream::StreamExt::merge(
        tokio_stream::once(request),
        tokio_stream::pending::<DeltaDiscoveryRequest>(),
    );
    let mut client = AggregatedDiscoveryServiceClient::new(connect(address, config).await);
    let mut responses = client.delta_aggregated_resources(requests).await?.into_inner();
    let response = responses.message().await?.unwrap();
    Ok(response.resources[0].name.clone())
}

#[tokio::test]
async fn a_proxy_gets_only_what_its_identity_may_have() {
    runtime::install_crypto_provider();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::self_signed(now, Serial::random().unwrap()).unwrap();
    let address = start(&authority).await.address;

    let own = client(&authority, Some("spiffe://cluster.local/ns/shop/sa/web"));
    assert!(ask(address, own).await.is_ok());

    let status = ask(address, client(&authority, None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);

    let other = client(&authority, Some("spiffe://cluster.local/ns/shop/sa/cart"));
    let status = ask(address, other).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(
        status.message(),
        "spiffe://cluster.local/ns/shop/sa/cart may not get the configuration of pod shop/web-0: \
         the pod runs as service account \"web\""
    );
}

/// An agent's stream.
struct Agent {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Agent {
    async fn connect(address: SocketAddr, config: ClientConfig) -> Result<Self, tonic::Status> {
        let (requests, stream) = mpsc::unbounded_channel();
        let agent = Value { kind: Some(Kind::BoolValue(true)) };
        let metadata = Struct { fields: [(names::AGENT_METADATA.to_owned(), agent)].into() };
        let node = Node {
            id: "sidecar~10.0.0.9~web-0.shop~shop.svc.cluster.local".to_owned(),
            metadata: Some(metadata),
            ..Node::default()
        };
        let pods = vec!["shop/web-0".to_owned(), "shop/other-0".to_owned()];
        let wildcard = || vec!["*".to_owned()];
        for (kind, names) in [
            (ResourceType::Host, wildcard()),
            (ResourceType::Pod, pods),
            (ResourceType::Cluster, wildcard()),
        ] {
            let request = DeltaDiscoveryRequest {
                node: Some(node.clone()),
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: names,
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(request).unwrap();
        }
        let stream = UnboundedReceiverStream::new(stream);
        let channel = connect(address, config).await;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let responses = client.delta_aggregated_resources(stream).await?.into_inner();
        Ok(Self { requests, responses })
    }

    /// The next response: `+NAME VALUE` of hosts and pods, `-NAME` of what is gone.
    async fn next(&mut self) -> Vec<String> {
        let response = self.responses.message().await.unwrap().unwrap();
        let acknowledgement = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(acknowledgement).unwrap();
        let shown = response.resources.into_iter().map(|resource| {
            let any = resource.resource.unwrap();
            let value = match any.type_url.as_str() {
                names::HOST_TYPE_URL => {
                    let host = names::Host::decode(&*any.value).unwrap();
                    let addresses: Vec<_> = host.addresses.iter().map(|ip| ip.to_vec()).collect();
                    format!("{addresses:?}")
                }
                names::POD_TYPE_URL => {
                    names::Pod::decode(&*any.value).unwrap().applications_finished.to_string()
                }
                other => panic!("{other} is not for agents"),
            };
            format!("+{} {value}", resource.name)
        });
        let gone = response.removed_resources.into_iter().map(|name| format!("-{name}"));
        shown.chain(gone).collect()
    }
}

#[tokio::test]
async fn an_agent_gets_hosts_and_news_of_its_own_pod() {
    runtime::install_crypto_provider();
    let now = OffsetDateTime::now_utc();
    let authority = Authority::self_signed(now, Serial::random().unwrap()).unwrap();
    let running = start(&authority).await;
    let identity = |account| client(&authority, Some(account));

    let other = identity("spiffe://cluster.local/ns/shop/sa/cart");
    let status = match Agent::connect(running.address, other).await {
        Ok(mut agent) => agent.responses.message().await.unwrap_err(),
        Err(status) => status,
    };
    assert_eq!(status.code(), Code::PermissionDenied);

    let own = identity("spiffe://cluster.local/ns/shop/sa/web");
    let mut agent = Agent::connect(running.address, own).await.unwrap();
    let hosts = [
        "+cart.shop.svc.cluster.local [[10, 96, 0, 1]]",
        "+db.shop.svc.cluster.local [[10, 0, 0, 1]]",
    ];
    assert_eq!(agent.next().await, hosts);
    let pods = ["+shop/web-0 false", "-shop/other-0"];
    assert_eq!(agent.next().await, pods, "of others it learns nothing");
    assert!(agent.next().await.is_empty(), "clusters are for Envoy");

    let worlds = running.fleet.updates();
    let finished = CLUSTER.replace("running: {}", "terminated: {exitCode: 0}");
    let changes = Changes { finished: [Key::new("shop", "web-0")].into(), ..Changes::default() };
    running.mailbox.put(from_yaml(&finished).unwrap(), changes);
    assert_eq!(agent.next().await, ["+shop/web-0 true"]);
    assert!(!worlds.has_changed().unwrap(), "proxies hear nothing of it");

    let moved = finished.replace("[10.0.0.1]", "[10.0.0.2]");
    let changes = Changes { endpoints_of: [Key::new("shop", "db")].into(), ..Changes::default() };
    running.mailbox.put(from_yaml(&moved).unwrap(), changes);
    assert_eq!(agent.next().await, ["+db.shop.svc.cluster.local [[10, 0, 0, 2]]"]);

    assert!(running.fleet.scopes().is_empty(), "no plan is made for an agent");
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &running.registry).unwrap();
    assert!(!metrics.contains("proxies{"), "an agent is not counted: {metrics}");
}
