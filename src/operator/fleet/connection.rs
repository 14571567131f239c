//! One stream of reports: TLS that believes the control plane of the revision alone, HTTP/2, lines of
//! JSON.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::control_planes::ControlPlane;
use crate::{
    ca::{ROOT_CONFIG_MAP, ROOT_KEY, certificates_in_pem},
    control_plane::report::{
        Line,
        line::{HEARTBEAT_SECONDS, PATH},
    },
    operator::platform::Platform,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The API server reviews the token meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Without so many heartbeats the control plane is gone, or the network to it.
const SILENCE: Duration = Duration::from_secs(3 * HEARTBEAT_SECONDS);
const LONGEST_LINE: usize = 64 * 1024;
const LONGEST_REFUSAL: usize = 4 * 1024;
/// What may be under way to us.
const WINDOW: u32 = 256 * 1024;

/// With what control planes are asked.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) client: Client,
    /// Where control planes are, and the mesh's root certificates too.
    pub(super) namespace: String,
    /// The kubelet renews it.
    pub(super) token: PathBuf,
}

/// Why a control plane cannot be listened to.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the token in {path} cannot be read")]
    Token { path: PathBuf, source: io::Error },
    #[error("ConfigMap {ROOT_CONFIG_MAP} cannot be read")]
    Roots(#[source] Box<kube::Error>),
    #[error("ConfigMap {ROOT_CONFIG_MAP} has no certificate in {ROOT_KEY}")]
    NoRoots,
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no answer in {}", shown(*.0))]
    Silent(Duration),
    #[error("the connection was lost")]
    Lost(#[source] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[source] http::Error),
    #[error("it answers {status}: {sentence}")]
    Refused { status: StatusCode, sentence: String },
    #[error("it says what is not a report")]
    Line(#[source] serde_json::Error),
    #[error("it sends a line of more than {LONGEST_LINE} bytes")]
    LongLine,
}

fn shown(duration: Duration) -> String {
    format!("{} seconds", duration.as_secs())
}

/// An error with all that it is because of.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Listens until the control plane ends the stream.
pub(super) async fn listen(
    to: &ControlPlane,
    credentials: &Credentials,
    hear: impl FnMut(Line),
) -> Result<(), Error> {
    let path = &credentials.token;
    let token = tokio::fs::read_to_string(path).await;
    let token = token.map_err(|source| Error::Token { path: path.clone(), source })?;
    let roots = roots(credentials).await?;
    let host =
        format!("{}.{}.svc", Platform::control_plane_name(&to.revision), credentials.namespace);
    let stream = timeout(CONNECT_TIMEOUT, connect(to, &host, &roots))
        .await
        .map_err(|_| Error::Silent(CONNECT_TIMEOUT))??;
    exchange(stream, &host, token.trim(), hear).await
}

/// PEM.
async fn roots(credentials: &Credentials) -> Result<String, Error> {
    let api = Api::<ConfigMap>::namespaced(credentials.client.clone(), &credentials.namespace);
    let map = api.get(ROOT_CONFIG_MAP).await.map_err(|error| Error::Roots(Box::new(error)))?;
    map.data.and_then(|mut data| data.remove(ROOT_KEY)).ok_or(Error::NoRoots)
}

async fn connect(
    to: &ControlPlane,
    host: &str,
    roots: &str,
) -> Result<TlsStream<TcpStream>, Error> {
    let mut store = RootCertStore::empty();
    for root in certificates_in_pem(roots, ROOT_KEY).map_err(|_| Error::NoRoots)? {
        store.add(root).map_err(Error::Tls)?;
    }
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| Error::Connect(io::Error::other(error)))?;
    let stream = TcpStream::connect(to.address).await.map_err(Error::Connect)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(Error::Connect)
}

/// Asks, and hears what comes.
async fn exchange(
    stream: TlsStream<TcpStream>,
    host: &str,
    token: &str,
    hear: impl FnMut(Line),
) -> Result<(), Error> {
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Error::Lost)?;
    let request = Request::get(format!("https://{host}{PATH}"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())
        .map_err(Error::Request)?;
    let listening = async {
        let answer = timeout(ANSWER_TIMEOUT, sender.send_request(request)).await;
        let response = answer.map_err(|_| Error::Silent(ANSWER_TIMEOUT))?.map_err(Error::Lost)?;
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::OK {
            read(body, hear).await
        } else {
            Err(refusal(parts.status, body).await)
        }
    };
    tokio::select! {
        outcome = listening => outcome,
        // Without it nothing moves; the stream may end with it, which is no failure of its own.
        ended = connection => ended.map_err(Error::Lost),
    }
}

async fn refusal(status: StatusCode, body: Incoming) -> Error {
    let read = timeout(ANSWER_TIMEOUT, Limited::new(body, LONGEST_REFUSAL).collect()).await;
    let bytes = read.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    Error::Refused { status, sentence: String::from_utf8_lossy(&bytes).trim().to_owned() }
}

async fn read(mut body: Incoming, mut hear: impl FnMut(Line)) -> Result<(), Error> {
    let mut lines = Lines::default();
    loop {
        let frame = timeout(SILENCE, body.frame()).await.map_err(|_| Error::Silent(SILENCE))?;
        let Some(frame) = frame else { return Ok(()) };
        if let Ok(data) = frame.map_err(Error::Lost)?.into_data() {
            lines.take(&data, &mut hear)?;
        }
    }
}

/// Puts lines together again.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, data: &[u8], hear: &mut impl FnMut(Line)) -> Result<(), Error> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            if self.rest.len() + piece.len() > LONGEST_LINE {
                return Err(Error::LongLine);
            }
            self.rest.extend_from_slice(piece);
            if self.rest.ends_with(b"\n") {
                hear(serde_json::from_slice(&self.rest).map_err(Error::Line)?);
                self.rest.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control_plane::report::{Report, State},
        watch::Key,
    };

    #[test]
    fn lines_come_in_whatever_pieces() {
        let sent: Vec<_> = (0..5)
            .map(|n| Line::Proxy(Report::new(&Key::new("é", &format!("{n}")), State::Current)))
            .collect();
        let mut bytes = Vec::new();
        for line in &sent {
            line.write(&mut bytes).unwrap();
        }
        for size in [1, 2, 3, 7, 64, 1000] {
            let (mut lines, mut heard) = (Lines::default(), Vec::new());
            for piece in bytes.chunks(size) {
                lines.take(piece, &mut |line| heard.push(line)).unwrap();
            }
            assert_eq!(heard, sent, "{size}");
        }
    }

    #[test]
    fn nonsense_and_lines_without_end_are_errors() {
        let mut ignored = |_| {};
        let refused = Lines::default().take(b"{\"type\":\n", &mut ignored).unwrap_err();
        assert!(matches!(refused, Error::Line(_)));
        let mut lines = Lines::default();
        lines.take(&vec![b' '; LONGEST_LINE], &mut ignored).unwrap();
        assert!(matches!(lines.take(b" ", &mut ignored), Err(Error::LongLine)));
    }

    #[test]
    fn an_error_says_why() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(with_causes(&Error::Connect(refused)), "cannot connect: connection refused");
    }
}
