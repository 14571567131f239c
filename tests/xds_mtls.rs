//! xDS over mutual TLS: a proxy gets the configuration of pods of its own identity, no other's.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{net::SocketAddr, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{
        DeltaDiscoveryRequest,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use hyper_util::rt::TokioIo;
use meshwright::{
    ca::{self, Authority, Serial, Validity, certificates_in_pem},
    control_plane::{Fleet, Metrics, serve::drive},
    runtime::{
        self,
        tls::{LiveTls, serve},
    },
    watch::{Changes, Mailbox, from_yaml},
    xds::{ResourceType, server::Server},
};
use prometheus_client::registry::Registry;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::PrivateKeyDer};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

const SERVER: &str = "control-plane.test";
const CLUSTER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web, containers: []}
status: {podIP: 10.0.0.9}
";

async fn start(authority: &Authority) -> SocketAddr {
    let mailbox = Mailbox::default();
    let metrics = Metrics::new(&mut Registry::default());
    let fleet = Fleet::new(metrics.clone());
    let mut updates = fleet.updates();
    mailbox.put(from_yaml(CLUSTER).unwrap(), Changes::all());
    tokio::spawn(drive(mailbox, fleet.clone(), metrics));
    updates.changed().await.unwrap();
    let now = OffsetDateTime::now_utc();
    let config = ca::tls::server_config(authority, &[SERVER.to_owned()], now).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::new(Arc::new(fleet)).router();
    let tls = Arc::new(LiveTls::new(config));
    tokio::spawn(serve(listener, tls, router, std::future::pending()));
    address
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
    let address = start(&authority).await;

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
