//! A control plane for one proxy: the real CA, and an ADS that sends one listener.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{
                ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, SocketAddress,
                TransportSocket,
                address::Address as Kind,
                api_config_source::ApiType,
                config_source::ConfigSourceSpecifier,
                data_source::Specifier,
                grpc_service::{EnvoyGrpc, TargetSpecifier},
                socket_address::PortSpecifier,
                transport_socket::ConfigType,
            },
            listener::v3::{Filter, FilterChain, Listener, filter},
            route::v3::{
                DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost,
                route::Action, route_match::PathSpecifier,
            },
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier,
                    http_filter,
                },
            },
            transport_sockets::tls::v3::{CommonTlsContext, DownstreamTlsContext, SdsSecretConfig},
        },
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
            aggregated_discovery_service_server::AggregatedDiscoveryServiceServer,
        },
    },
    google::protobuf::Any,
};
use envoy_types::util::pack_any;
use futures::StreamExt;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use meshwright::{
    ca::{self, Authenticate, Authority, Refused, Serial},
    identity::SpiffeId,
    runtime::tls::PeerCertificates,
    xds::names::{HOST_TYPE_URL, Host, POD_TYPE_URL, Pod},
};
use prost::Message;
use rustls::pki_types::{CertificateDer, ServerName};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tonic::Streaming;

use crate::ads::{Ads, Converse, Responses};

/// The name in the control plane's certificate.
pub const HOST: &str = "127.0.0.1";
pub const PORT: u16 = 15012;
/// The port of the workload's listener.
const WORKLOAD: u16 = 15443;

/// What the control plane saw of its client.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub identity: String,
    pub node: String,
    pub streams: u32,
}

pub struct ControlPlane {
    authority: Arc<Authority>,
    seen: Arc<Mutex<Seen>>,
    refusing: Arc<AtomicBool>,
}

pub fn authority() -> Arc<Authority> {
    let now = OffsetDateTime::now_utc();
    Arc::new(Authority::self_signed(now, Serial::random().unwrap()).unwrap())
}

/// Starts a control plane that sends configuration after `late`.
pub async fn start(late: Duration) -> ControlPlane {
    start_with(authority(), late).await
}

pub async fn start_with(authority: Arc<Authority>, late: Duration) -> ControlPlane {
    crate::pod::set_roots(authority.root_pem());
    let seen = Arc::new(Mutex::new(Seen::default()));
    let refusing = Arc::new(AtomicBool::new(false));
    let callers = Tokens(Arc::clone(&refusing));
    let ca = ca::Service::new(Arc::clone(&authority), callers, "cluster.local");
    let ads = Ads(Configuration { seen: Arc::clone(&seen), late });
    let ads = AggregatedDiscoveryServiceServer::new(ads);
    let router = tonic::service::Routes::new(ads).add_service(ca.into_server()).into_axum_router();
    let names = [HOST.to_owned()];
    let config = ca::tls::server_config(&authority, &names, OffsetDateTime::now_utc()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((HOST, PORT)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, acceptor.clone(), router.clone()));
        }
    });
    ControlPlane { authority, seen, refusing }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, router: axum::Router) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let peer = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer: Arc<[CertificateDer<'static>]> = peer.to_vec().into();
    let router = router.layer(axum::Extension(PeerCertificates(peer)));
    let service = TowerToHyperService::new(router);
    let io = TokioIo::new(stream);
    drop(auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
}

struct Tokens(Arc<AtomicBool>);

#[tonic::async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, token: &str) -> Result<SpiffeId, Refused> {
        if self.0.load(Ordering::Relaxed) || token != "the token" {
            return Err(Refused::Token("no".to_owned()));
        }
        Ok("spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap())
    }
}

impl ControlPlane {
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    pub fn refuse_certificates(&self) {
        self.refusing.store(true, Ordering::Relaxed);
    }

    /// Opens a connection to the workload, verified by the mesh's roots.
    pub async fn connect_to_workload(&self) -> Connection {
        let mut roots = rustls::RootCertStore::empty();
        for root in self.authority.roots() {
            roots.add(root.clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        // The workload is named by its URI, so the DNS name does not match: only the chain is
        // looked at.
        let verifier = ChainOnly(
            rustls::client::WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::clone(&provider),
            )
            .build()
            .unwrap(),
        );
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        let stream = TcpStream::connect((HOST, WORKLOAD)).await.unwrap();
        let name = ServerName::try_from("workload.mesh.internal").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Connection(connector.connect(name, stream).await.unwrap())
    }
}

#[derive(Debug)]
struct ChainOnly(Arc<rustls::client::WebPkiServerVerifier>);

impl rustls::client::danger::ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        use rustls::{CertificateError, Error::InvalidCertificate};
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(rustls::client::danger::ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A connection to the workload that stays open.
pub struct Connection(TlsStream<TcpStream>);

impl Connection {
    pub fn certificate(&self) -> Vec<u8> {
        self.0.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }

    /// One request and its answer, which must be good.
    pub async fn request(&mut self) -> String {
        self.0.write_all(b"GET / HTTP/1.1\r\nhost: workload\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 1024];
        while !answer.ends_with("hello") {
            let length = self.0.read(&mut buffer).await.unwrap();
            assert!(length > 0, "the connection was dropped after {answer:?}");
            answer.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }
}

struct Configuration {
    seen: Arc<Mutex<Seen>>,
    late: Duration,
}

impl Converse for Configuration {
    fn converse(
        &self,
        identity: String,
        requests: Streaming<DeltaDiscoveryRequest>,
    ) -> Responses<DeltaDiscoveryResponse> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.identity = identity;
            seen.streams += 1;
        }
        let (seen, late) = (Arc::clone(&self.seen), self.late);
        Box::pin(requests.filter_map(move |request| {
            let seen = Arc::clone(&seen);
            async move {
                let request = request.ok()?;
                if let Some(error) = &request.error_detail {
                    println!("refused: {}", error.message);
                }
                if let Some(node) = &request.node {
                    seen.lock().unwrap().node.clone_from(&node.id);
                }
                if !request.response_nonce.is_empty() {
                    return None;
                }
                tokio::time::sleep(late).await;
                Some(Ok(response(&request.type_url)))
            }
        }))
    }
}

fn response(type_url: &str) -> DeltaDiscoveryResponse {
    let mut resources = Vec::new();
    if type_url.ends_with(".Listener") {
        resources.push(Resource {
            name: "workload".to_owned(),
            version: "1".to_owned(),
            resource: Some(pack_any(listener())),
            ..Resource::default()
        });
    }
    let host = Host { addresses: vec![vec![10, 96, 0, 1].into()], ..Host::default() };
    let job = Pod { applications_finished: true };
    match type_url {
        // A great mesh.
        HOST_TYPE_URL => resources
            .extend((0..1000).map(|n| {
                own(&format!("service-{n}.shop.svc.cluster.local"), host.encode_to_vec())
            })),
        POD_TYPE_URL => resources.push(own("shop/job-1", job.encode_to_vec())),
        _ => {}
    }
    DeltaDiscoveryResponse {
        resources,
        type_url: type_url.to_owned(),
        nonce: "1".to_owned(),
        ..DeltaDiscoveryResponse::default()
    }
}

/// A resource of a type of our own.
fn own(name: &str, value: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        resource: Some(Any { value, ..Any::default() }),
        ..Resource::default()
    }
}

/// TLS with the workload's certificate, and "hello" to every request.
fn listener() -> Listener {
    let address = SocketAddress {
        address: HOST.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(WORKLOAD.into())),
        ..SocketAddress::default()
    };
    let chain = FilterChain {
        filters: vec![Filter {
            name: "http".to_owned(),
            config_type: Some(filter::ConfigType::TypedConfig(pack_any(http()))),
        }],
        transport_socket: Some(TransportSocket {
            name: "tls".to_owned(),
            config_type: Some(ConfigType::TypedConfig(tls())),
        }),
        ..FilterChain::default()
    };
    Listener {
        name: "workload".to_owned(),
        address: Some(envoy_types::pb::envoy::config::core::v3::Address {
            address: Some(Kind::SocketAddress(address)),
        }),
        filter_chains: vec![chain],
        ..Listener::default()
    }
}

fn tls() -> Any {
    let grpc = EnvoyGrpc { cluster_name: "sds-grpc".to_owned(), ..EnvoyGrpc::default() };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        set_node_on_first_message_only: true,
        grpc_services: vec![GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)),
            ..GrpcService::default()
        }],
        ..ApiConfigSource::default()
    };
    let secret = SdsSecretConfig {
        name: "default".to_owned(),
        sds_config: Some(ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(source)),
            ..ConfigSource::default()
        }),
    };
    pack_any(DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret],
            ..CommonTlsContext::default()
        }),
        ..DownstreamTlsContext::default()
    })
}

fn http() -> HttpConnectionManager {
    let hello = DirectResponseAction {
        status: 200,
        body: Some(DataSource {
            specifier: Some(Specifier::InlineString("hello".to_owned())),
            ..DataSource::default()
        }),
        ..DirectResponseAction::default()
    };
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::DirectResponse(hello)),
        ..Route::default()
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..VirtualHost::default()
    };
    let routes = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
    HttpConnectionManager {
        stat_prefix: "workload".to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    }
}
