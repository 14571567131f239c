//! The webhook's certificate is replaced while reviews come in, over connections that stay and over
//! new ones: none fails. The old certificate is expired by then, so a connection that was made with
//! it must live on and none may be made with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;
#[path = "inject/fixture.rs"]
mod fixture;
#[path = "inject/webhook.rs"]
mod webhook;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use meshwright::runtime::tls::{self, LiveTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use time::{Duration, OffsetDateTime};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// How often the certificate is replaced.
const REPLACEMENTS: usize = 20;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server's certificate, valid from an hour ago until `end` from now.
fn server_config(authority: &Authority, end: Duration) -> ServerConfig {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = OffsetDateTime::now_utc() - Duration::HOUR;
    params.not_after = OffsetDateTime::now_utc() + end;
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

fn client_config(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

type Connection = SendRequest<Full<Bytes>>;

async fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<Connection, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let stream = TcpStream::connect(to).await.map_err(|e| text(&e))?;
    let name = "localhost".try_into().unwrap();
    let stream =
        TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|e| text(&e))?;
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn review(connection: &mut Connection) -> Result<(), String> {
    let body = webhook::review("", "Pod", "shop", &webhook::pod());
    let request = Request::post("https://localhost/inject/default")
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap();
    let response = connection.send_request(request).await.map_err(|e| e.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
    let patched = body.windows(9).any(|part| part == b"JSONPatch");
    if status == StatusCode::OK && patched { Ok(()) } else { Err(format!("{status}: {body:?}")) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_replaced_under_load_costs_no_review() {
    meshwright::runtime::install_crypto_provider();
    let authority = authority();
    let client = client_config(&authority);
    let live = Arc::new(LiveTls::new(server_config(&authority, Duration::HOUR)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = webhook::server().routes;
    tokio::spawn(tls::serve(listener, live.clone(), routes, std::future::pending()));

    let mut kept = connect(address, &client).await.unwrap();
    // What was in force so far has ended by now, for connections that are new.
    live.replace(server_config(&authority, -Duration::MINUTE));
    let refused = connect(address, &client).await.unwrap_err();
    assert!(refused.contains("xpired"), "{refused}");
    live.replace(server_config(&authority, Duration::HOUR));
    review(&mut kept).await.unwrap();

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = |fresh: bool| {
        let (stop, done, client) = (stop.clone(), done.clone(), client.clone());
        async move {
            let mut connection = connect(address, &client).await?;
            while !stop.load(Ordering::Relaxed) {
                if fresh {
                    connection = connect(address, &client).await?;
                }
                review(&mut connection).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, String>(())
        }
    };
    let clients = [true, true, false, false].map(|fresh| tokio::spawn(load(fresh)));
    for _ in 0..REPLACEMENTS {
        let before = done.load(Ordering::Relaxed);
        live.replace(server_config(&authority, Duration::HOUR));
        // Every one of them meets some reviews.
        while done.load(Ordering::Relaxed) < before + 20
            && !clients.iter().any(JoinHandle::is_finished)
        {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().unwrap();
    }
    assert!(done.load(Ordering::Relaxed) >= 20 * REPLACEMENTS);
}
