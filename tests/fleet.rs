//! The operator's fleet against a real control plane over TLS, with real xDS sessions, and an API
//! server of a few lines.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    google::{
        protobuf::{Struct, Value as ProtoValue, value::Kind},
        rpc::Status,
    },
};
use futures::StreamExt;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use meshwright::{
    api::meshwright::{MeshInstallation, MeshInstallationSpec},
    ca::{self, Authenticate, Authority, Refused, Serial, Validity, certificates_in_pem},
    control_plane::{Metrics, report, serve::drive},
    identity::SpiffeId,
    operator::{
        context::Context,
        fleet::{self, Fleet, Summary, proxy::Configuration},
        platform::{Images, WebhookEndpoint},
    },
    runtime::{
        self,
        tls::{LiveTls, serve},
    },
    watch::{Changes, Mailbox, from_yaml},
    webhook::server::Installations,
    xds::{ResourceType, server::Server},
};
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::PrivateKeyDer};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

const SERVER: &str = "meshwright-control-plane.meshwright-system.svc";
const SYSTEM: &str = "meshwright-system";
const GOOD: &str = "a-good-token";
const CLUSTER: &str = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{port: 80, name: http}]}
";

/// Knows three tokens.
struct Tokens;

#[tonic::async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, token: &str) -> Result<SpiffeId, Refused> {
        let of = |account: &str| format!("spiffe://cluster.local/ns/{account}").parse().unwrap();
        match token {
            GOOD => Ok(of("meshwright-system/sa/meshwright-operator")),
            "a-workloads-token" => Ok(of("shop/sa/web")),
            "a-namesakes-token" => Ok(of("shop/sa/meshwright-operator")),
            _ => Err(Refused::Token("nobody knows it".to_owned())),
        }
    }
}

/// A control plane.
struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

fn authority() -> Authority {
    runtime::install_crypto_provider();
    Authority::self_signed(OffsetDateTime::now_utc(), Serial::random().unwrap()).unwrap()
}

async fn control_plane(authority: &Authority) -> Running {
    let mailbox = Mailbox::default();
    let metrics = Metrics::new(&mut Registry::default());
    let fleet = meshwright::control_plane::Fleet::new(metrics.clone());
    let mut updates = fleet.updates();
    mailbox.put(from_yaml(CLUSTER).unwrap(), Changes::all());
    tokio::spawn(drive(mailbox.clone(), fleet.clone(), metrics));
    updates.changed().await.unwrap();
    let now = OffsetDateTime::now_utc();
    let config = ca::tls::server_config(authority, &[SERVER.to_owned()], now).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = watch::Sender::new(false);
    let operator = "spiffe://cluster.local/ns/meshwright-system/sa/meshwright-operator";
    let reports =
        report::router(fleet.clone(), Tokens, operator.parse().unwrap(), stop.subscribe());
    let router = Server::new(Arc::new(fleet)).router().merge(reports);
    let mut stopped = stop.subscribe();
    tokio::spawn(async move {
        let stopped = async move { drop(stopped.wait_for(|stop| *stop).await) };
        serve(listener, Arc::new(LiveTls::new(config)), router, stopped).await;
        // It lives as long as the control plane.
        drop(mailbox);
    });
    Running { address, stop }
}

/// A proxy's stream, with the certificate that its pod has.
struct Envoy {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

fn tls(authority: &Authority, validity: Validity) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).unwrap();
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
    let serial = Serial::random().unwrap();
    let leaf = ca::issue(&request, &identity, serial, validity, authority).unwrap();
    let chain = certificates_in_pem(&leaf, "the leaf").unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = builder.with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Counts its connections.
async fn channel(
    address: SocketAddr,
    config: ClientConfig,
    connections: Arc<AtomicUsize>,
) -> Channel {
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        connections.fetch_add(1, Ordering::Relaxed);
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = SERVER.try_into().unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://control-plane.test");
    endpoint.connect_with_connector(connect).await.unwrap()
}

impl Envoy {
    /// Connects and takes its clusters.
    async fn connect(address: SocketAddr, authority: &Authority, pod: &str) -> Self {
        let day = Validity::starting(OffsetDateTime::now_utc(), Duration::from_hours(24));
        let channel = channel(address, tls(authority, day), Arc::default()).await;
        Self::on(channel, pod).await
    }

    async fn on(channel: Channel, pod: &str) -> Self {
        let (requests, stream) = mpsc::unbounded_channel();
        let text = |text: &str| ProtoValue { kind: Some(Kind::StringValue(text.to_owned())) };
        let fields = [
            ("SERVICE_ACCOUNT".to_owned(), text("web")),
            ("MESHWRIGHT_VERSION".to_owned(), text("0.1.0")),
        ];
        let node = Node {
            id: format!("sidecar~10.0.0.9~{pod}.shop~shop.svc.cluster.local"),
            metadata: Some(Struct { fields: fields.into() }),
            ..Node::default()
        };
        let first = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: ResourceType::Cluster.type_url().to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(first).unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let stream = UnboundedReceiverStream::new(stream);
        let responses = client.delta_aggregated_resources(stream).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn answer(&mut self, refusal: Option<&str>) {
        let response = self.responses.message().await.unwrap().unwrap();
        let error =
            refusal.map(|message| Status { message: message.to_owned(), ..Status::default() });
        let answer = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            error_detail: error,
            ..DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).unwrap();
    }
}

fn pod(name: &str, image: &str) -> Value {
    json!({
        "metadata": {
            "uid": name, "name": name, "namespace": "shop", "resourceVersion": "5",
            "labels": {"meshwright.dev/revision": "default"},
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}],
        },
        "spec": {
            "containers": [{"name": "web", "image": "web:1"}],
            "initContainers": [{"name": "meshwright-proxy", "image": image}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn slice(addresses: &[SocketAddr]) -> Value {
    let endpoint = |address: &SocketAddr| {
        json!({
            "metadata": {
                "name": format!("slice-{}", address.port()), "namespace": SYSTEM,
                "labels": {"kubernetes.io/service-name": "meshwright-control-plane"},
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [address.ip()], "conditions": {"serving": true},
                "targetRef": {"kind": "Pod", "name": format!("replica-{}", address.port())},
            }],
            "ports": [{"name": "tls-xds", "port": address.port()}],
        })
    };
    addresses.iter().map(endpoint).collect()
}

/// Answers lists, and watches with what `news` brings: kind of object and event.
fn api_server(
    roots: &str,
    pods: Vec<Value>,
    slices: Value,
    news: &watch::Sender<Vec<(&'static str, Value)>>,
) -> Client {
    let list =
        |items: Value| json!({"metadata": {"resourceVersion": "10"}, "items": items}).to_string();
    let (pods, slices) = (list(pods.into()), list(slices));
    let roots = json!({
        "metadata": {"name": "meshwright-ca-root-cert"}, "data": {"root-cert.pem": roots},
    })
    .to_string();
    let news = news.subscribe();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (path, query) =
            (request.uri().path().to_owned(), request.uri().query().unwrap_or_default());
        let plural = path.rsplit('/').next().unwrap_or_default().to_owned();
        let body = if query.contains("watch=true") {
            let events = futures::stream::unfold(news.clone(), |mut news| async {
                news.changed().await.ok()?;
                let newest = news.borrow_and_update().clone();
                Some((newest, news))
            });
            let lines = events.map(move |news| {
                let ours = news.iter().filter(|(kind, _)| *kind == plural);
                let lines: Vec<_> = ours.map(|(_, event)| event.to_string()).collect();
                Ok::<_, Infallible>(lines.join("\n") + "\n")
            });
            axum::body::Body::from_stream(lines)
        } else {
            let text = match plural.as_str() {
                "pods" => &pods,
                "endpointslices" => &slices,
                _ => &roots,
            };
            axum::body::Body::from(text.clone())
        };
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    Client::new(service, "default")
}

fn context(client: Client, token: Option<&Path>) -> Arc<Context> {
    let images = Images { image_tag: Some("0.1.0".to_owned()), ..Images::default() };
    let mut installation = MeshInstallation::new("default", MeshInstallationSpec::default());
    "default".clone_into(&mut installation.spec.revision);
    let objects = vec![Arc::new(installation)];
    let installations = Installations { objects, ..Installations::default() };
    Arc::new(Context {
        installations: Arc::new(ArcSwap::from_pointee(installations)),
        fleet: Fleet::new(token.map(Path::to_owned), fleet::Metrics::default()),
        ..Context::new(client, images.platform(SYSTEM.to_owned(), WebhookEndpoint::Service))
    })
}

async fn until(context: &Context, is_so: impl Fn(&Summary) -> bool) -> Arc<Summary> {
    let mut summaries = context.fleet.summaries();
    let waiting = summaries.wait_for(|all| all.get("default").is_some_and(|s| is_so(s)));
    let found = tokio::time::timeout(Duration::from_mins(1), waiting).await;
    match found {
        Ok(all) => all.unwrap()["default"].clone(),
        Err(error) => panic!("{error}: at the end: {:#?}", context.fleet.summaries().borrow()),
    }
}

fn token(folder: &tempfile::TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("token");
    std::fs::write(&path, text).unwrap();
    path
}

const IMAGE: &str = "meshwright.dev/meshwright-proxy:0.1.0";

#[tokio::test]
async fn each_replica_tells_of_its_share() {
    let authority = authority();
    let (one, two) = (control_plane(&authority).await, control_plane(&authority).await);
    let mut accepting = Envoy::connect(one.address, &authority, "web-0").await;
    accepting.answer(None).await;
    let mut refusing = Envoy::connect(two.address, &authority, "web-1").await;
    let refused = "outbound|80||cart.shop.svc.cluster.local";
    refusing.answer(Some(&format!("Error adding/updating cluster(s) {refused}: no"))).await;

    let folder = tempfile::tempdir().unwrap();
    let pods = vec![pod("web-0", IMAGE), pod("web-1", IMAGE), pod("web-2", "elsewhere/proxy:7")];
    let news = watch::Sender::new(Vec::new());
    let slices = slice(&[one.address, two.address]);
    let client = api_server(authority.root_pem(), pods, slices, &news);
    let context = context(client, Some(&token(&folder, GOOD)));
    let following = context.clone();
    tokio::spawn(async move { fleet::follow(&following).await });

    let summary = until(&context, |s| s.count.rejected == 1 && s.states.current == 1).await;
    assert_eq!((summary.count.total, summary.count.ready), (3, 3));
    assert_eq!((summary.count.current, summary.count.outdated), (2, 1));
    assert_eq!((summary.states.disconnected, summary.states.unknown), (1, 0));
    let ends =
        summary.certificate_ends.unwrap().as_second() - OffsetDateTime::now_utc().unix_timestamp();
    assert!((22 * 3600..=24 * 3600).contains(&ends), "{ends} s");
    let proxies = context.fleet.proxies("default");
    let Configuration::Rejected(message) = &proxies[1].configuration else {
        panic!("{:?}", proxies[1]);
    };
    assert!(message.contains(refused), "{message}");
    let [ready, supported] = summary.findings();
    assert_eq!((ready.reason, supported.reason), ("Rejected", "Supported"));

    // The proxy leaves, and its pod after it.
    drop(refusing);
    until(&context, |s| s.count.rejected == 0 && s.states.disconnected == 2).await;
    news.send_replace(vec![("pods", json!({"type": "DELETED", "object": pod("web-1", IMAGE)}))]);
    until(&context, |s| s.count.total == 2 && s.states.disconnected == 1).await;

    // A control plane that ends says nothing any more.
    one.stop.send_replace(true);
    let summary = until(&context, |s| s.states.unknown == 2).await;
    assert_eq!((summary.findings()[0].reason, summary.count.total), ("NotKnown", 2));
}

#[tokio::test]
async fn who_is_not_believed_hears_nothing_and_says_so() {
    let authority = authority();
    let running = control_plane(&authority).await;
    let folder = tempfile::tempdir().unwrap();
    for (text, told) in [
        ("another-token", "401"),
        ("a-workloads-token", "403"),
        ("a-namesakes-token", "403"),
        ("", "401"),
    ] {
        let news = watch::Sender::new(Vec::new());
        let (pods, slices) = (vec![pod("web-0", IMAGE)], slice(&[running.address]));
        let client = api_server(authority.root_pem(), pods, slices, &news);
        let context = context(client, Some(&token(&folder, text)));
        let following = context.clone();
        let task = tokio::spawn(async move { fleet::follow(&following).await });
        let summary = until(&context, |s| s.states.unknown == 1).await;
        let [ready, _] = summary.findings();
        assert!(ready.message.contains(told), "{text}: {}", ready.message);
        assert_eq!((ready.status, ready.reason), (None, "NotKnown"));
        task.abort();
    }
}

#[tokio::test]
async fn only_the_control_plane_of_the_mesh_is_given_the_token() {
    let (ours, another) = (authority(), authority());
    let running = control_plane(&another).await;
    let folder = tempfile::tempdir().unwrap();
    let news = watch::Sender::new(Vec::new());
    let (pods, slices) = (vec![pod("web-0", IMAGE)], slice(&[running.address]));
    let context =
        context(api_server(ours.root_pem(), pods, slices, &news), Some(&token(&folder, GOOD)));
    let following = context.clone();
    tokio::spawn(async move { fleet::follow(&following).await });
    let summary = until(&context, |s| s.states.unknown == 1).await;
    let message = &summary.findings()[0].message;
    assert!(message.contains("certificate"), "{message}");
}

#[tokio::test]
async fn without_a_token_pods_are_counted_all_the_same() {
    let news = watch::Sender::new(Vec::new());
    let client = api_server("", vec![pod("web-0", IMAGE)], json!([]), &news);
    let context = context(client, None);
    let following = context.clone();
    tokio::spawn(async move { fleet::follow(&following).await });
    let summary = until(&context, |s| s.count.total == 1).await;
    assert_eq!((summary.count.current, summary.states.unknown), (1, 1));
    assert!(summary.findings()[0].message.contains("--token-file"));
}

/// Envoy would open a new stream on the connection that it has, with the certificate that it had.
#[tokio::test]
async fn a_stream_ends_with_its_connection_before_the_certificate_does() {
    let authority = authority();
    let running = control_plane(&authority).await;
    // Of its 121 seconds (two minutes are for clocks that differ) 84 are over.
    let start = OffsetDateTime::now_utc() + Duration::from_secs(36);
    let config = tls(&authority, Validity::starting(start, Duration::from_secs(1)));
    let connections = Arc::new(AtomicUsize::new(0));
    let channel = channel(running.address, config, connections.clone()).await;
    let mut envoy = Envoy::on(channel.clone(), "web-0").await;
    envoy.answer(None).await;
    let ended = envoy.responses.message().await.unwrap_err();
    assert_eq!((ended.code(), connections.load(Ordering::Relaxed)), (Code::Unavailable, 1));
    Envoy::on(channel, "web-0").await.answer(None).await;
    assert_eq!(connections.load(Ordering::Relaxed), 2);
}
