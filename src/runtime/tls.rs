//! Serves an axum router over TLS (or in the clear, on loopback): one accept loop for xDS, the CA
//! and the webhooks.
//!
//! The TLS configuration is read anew for each connection, so that a renewed certificate is in
//! force without a restart and without touching the connections that exist.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use tower::Service as _;

/// A client that does not finish its handshake by then holds a connection for nothing.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What connections may take to end their streams once we are told to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that hyper may take from a response before the client's window lets them go. Responses
/// are shared buffers, so a small one costs nothing and a large one would pin them.
const SEND_BUFFER: usize = 64 * 1024;

/// A TLS server configuration that can be replaced while it is in use.
#[derive(Debug)]
pub struct LiveTls(ArcSwap<ServerConfig>);

impl LiveTls {
    pub fn new(config: ServerConfig) -> Self {
        Self(ArcSwap::from_pointee(config))
    }

    /// Takes effect with the next connection.
    pub fn replace(&self, config: ServerConfig) {
        self.0.store(Arc::new(config));
    }

    pub fn current(&self) -> Arc<ServerConfig> {
        self.0.load_full()
    }
}

/// The client's verified certificate chain, in the extensions of each of its requests; empty if it
/// showed none.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// The client's address, in the extensions of each of its requests.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// Ends the connection that a request came by, in the extensions of each request: no new one is taken,
/// those under way are answered. The client comes back with a handshake.
#[derive(Clone, Debug, Default)]
pub struct ConnectionEnd(Arc<Notify>);

impl ConnectionEnd {
    pub fn begin(&self) {
        self.0.notify_one();
    }
}

/// Says, in the extensions of each request, when its connection is to end: true from then on. What
/// answers with a stream that would never end by itself must end it.
#[derive(Clone, Debug)]
pub struct Leaving(pub watch::Receiver<bool>);

/// How long a server that was told to stop goes on accepting connections: those who connect learn
/// only by and by that it leaves, and are refused if it is gone before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linger {
    /// It ends when nobody has connected for so long,
    pub quiet: Duration,
    /// and at the latest after so long.
    pub longest: Duration,
}

impl Linger {
    /// For servers that nobody finds by a Service.
    pub const NONE: Self = Self { quiet: Duration::ZERO, longest: Duration::ZERO };
}

/// Serves `router` over TLS until `shutdown`, then lets streams end for a few seconds.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<LiveTls>,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    serve_lingering(listener, tls, router, shutdown, Linger::NONE).await;
}

/// As [`serve`], but goes on for a while after `shutdown` as if nothing had happened.
pub async fn serve_lingering(
    listener: TcpListener,
    tls: Arc<LiveTls>,
    router: Router,
    shutdown: impl Future<Output = ()>,
    linger: Linger,
) {
    let (stop, stopped) = watch::channel(false);
    let door = Door { listener, tls: Some(tls), router, stopped };
    accept_loop(door, stop, shutdown, linger).await;
}

/// Serves `router` without TLS: for loopback addresses.
pub async fn serve_plaintext(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let door = Door { listener, tls: None, router, stopped };
    accept_loop(door, stop, shutdown, Linger::NONE).await;
}

/// Where connections come in, and what each of them needs.
struct Door {
    listener: TcpListener,
    tls: Option<Arc<LiveTls>>,
    router: Router,
    stopped: watch::Receiver<bool>,
}

impl Door {
    /// Waits for the next connection and serves it beside.
    async fn open(&self, connections: &mut JoinSet<()>) {
        match self.listener.accept().await {
            Ok((stream, peer)) => {
                let (tls, router) = (self.tls.clone(), self.router.clone());
                connections.spawn(connection(stream, peer, tls, router, self.stopped.clone()));
            }
            Err(error) => {
                // Out of descriptors, mostly: waiting is all that helps.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn accept_loop(
    door: Door,
    stop: watch::Sender<bool>,
    shutdown: impl Future<Output = ()>,
    linger: Linger,
) {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            () = door.open(&mut connections) => {}
        }
    }
    let latest = Instant::now() + linger.longest;
    while Instant::now() < latest {
        let quiet = latest.min(Instant::now() + linger.quiet);
        if tokio::time::timeout_at(quiet, door.open(&mut connections)).await.is_err() {
            break;
        }
    }
    drop(door);
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::debug!("closing connections that did not end in time");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<LiveTls>>,
    router: Router,
    stopped: watch::Receiver<bool>,
) {
    drop(stream.set_nodelay(true));
    let Some(tls) = tls else {
        let certificates = PeerCertificates(Arc::from([]));
        return http(stream, peer, certificates, router, stopped).await;
    };
    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let chain = chain.iter().map(|c| c.clone().into_owned()).collect();
            http(stream, peer, PeerCertificates(chain), router, stopped).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
}

async fn http<S>(
    stream: S,
    peer: SocketAddr,
    certificates: PeerCertificates,
    router: Router,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let end = ConnectionEnd::default();
    let asked = end.clone();
    let leaving = Leaving(stopped.clone());
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(leaving.clone());
        request.extensions_mut().insert(certificates.clone());
        request.extensions_mut().insert(end.clone());
        request.extensions_mut().insert(PeerAddress(peer));
        router.clone().call(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_send_buf_size(SEND_BUFFER);
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = async {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => {}
                () = asked.0.notified() => {}
            }
        } => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::get};
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::{ClientConfig, RootCertStore, pki_types::PrivateKeyDer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn certificate(name: &str) -> (ServerConfig, CertificateDer<'static>) {
        crate::runtime::install_crypto_provider();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        (config, cert.der().clone())
    }

    async fn ask(
        address: SocketAddr,
        name: &'static str,
        root: &CertificateDer<'static>,
    ) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(root.clone()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name.try_into().unwrap(), stream)
            .await
            .unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        drop(stream.read_to_string(&mut answer).await);
        answer
    }

    #[tokio::test]
    async fn a_replaced_certificate_is_used_by_the_next_connection() {
        let (first, first_root) = certificate("first.test");
        let (second, second_root) = certificate("second.test");
        let tls = Arc::new(LiveTls::new(first));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/",
            get(|Extension(peer): Extension<PeerCertificates>| async move {
                format!("{} certificates", peer.0.len())
            }),
        );
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, tls.clone(), router, async {
            drop(stopped.await);
        }));

        assert!(ask(address, "first.test", &first_root).await.contains("0 certificates"));
        tls.replace(second);
        assert!(ask(address, "second.test", &second_root).await.contains("0 certificates"));
        stop.send(()).unwrap();
        server.await.unwrap();
    }

    /// A server over the loopback that was told to stop, with what it is told by.
    async fn lingering(
        linger: Linger,
    ) -> (
        SocketAddr,
        tokio::sync::oneshot::Sender<()>,
        tokio::task::JoinHandle<()>,
        CertificateDer<'static>,
    ) {
        let (config, root) = certificate("linger.test");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            "answered"
        };
        let router = Router::new().route("/", get(slow));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let tls = Arc::new(LiveTls::new(config));
        let stopped = async { drop(stopped.await) };
        let server = tokio::spawn(serve_lingering(listener, tls, router, stopped, linger));
        (address, stop, server, root)
    }

    #[tokio::test]
    async fn who_connects_after_the_signal_is_answered_all_the_same() {
        let linger = Linger { quiet: Duration::from_secs(1), longest: Duration::from_mins(1) };
        let (address, stop, server, root) = lingering(linger).await;
        stop.send(()).unwrap();
        for _ in 0..3 {
            assert!(ask(address, "linger.test", &root).await.ends_with("answered"));
        }
        server.await.unwrap();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn what_is_in_flight_at_the_end_is_answered() {
        let (address, stop, server, root) = lingering(Linger::NONE).await;
        let asking = tokio::spawn(async move { ask(address, "linger.test", &root).await });
        // Long enough for the handshake, shorter than the answer takes.
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        assert!(asking.await.unwrap().ends_with("answered"));
        server.await.unwrap();
    }

    #[tokio::test]
    async fn those_who_never_stop_connecting_do_not_keep_it() {
        let linger = Linger { quiet: Duration::from_mins(1), longest: Duration::from_millis(300) };
        let (address, stop, server, _) = lingering(linger).await;
        stop.send(()).unwrap();
        while !server.is_finished() {
            drop(TcpStream::connect(address).await);
            tokio::task::yield_now().await;
        }
        server.await.unwrap();
    }
}
