//! The service around the session: `AggregatedDiscoveryService`, written by hand so that responses
//! go out as the shared bytes that they are.
//!
//! Each stream is one response body that is polled by its connection: no task, no queue. While a
//! client reads slowly nothing is prepared for it, and it then gets the newest state, not each one
//! that it missed.

mod stream;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::post,
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::watch;
use tonic::codec::Streaming;
use tonic_prost::ProstDecoder;

use super::{Memo, Rejection, ResourceType, Variant, View, wire::Encoder};
use crate::runtime::tls::{ConnectionEnd, Leaving, PeerCertificates};

/// Whoever makes the configuration.
pub trait Source: Send + Sync + 'static {
    /// A proxy connects. Refused with the sentence that its owner is to read.
    fn connect(&self, node: &Node, peer: &Peer) -> Result<Box<dyn Proxy>, Refusal>;
}

/// A connected proxy, as its stream sees it. Dropped when it disconnects.
pub trait Proxy: Send + 'static {
    /// Changes whenever [`Proxy::view`] may.
    fn updates(&self) -> watch::Receiver<u64>;
    /// What the proxy is to have now.
    fn view(&mut self) -> View;
    /// What the proxy refuses now: the whole list, whenever it changes.
    fn rejected(&mut self, rejections: Vec<Rejection>);
    /// A response is on its way.
    fn sent(&mut self, kind: ResourceType, bytes: usize);
    /// The client has acknowledged or refused everything that it was sent.
    fn settled(&mut self);
    /// When stream and connection shall end, so that the client comes back with a newer certificate.
    fn reconnect_at(&self) -> Option<Instant> {
        None
    }
}

/// How the client is connected.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Without TLS: over loopback only.
    Plaintext,
    /// Over TLS, with the certificates that it showed, verified; maybe none.
    Tls(PeerCertificates),
}

/// Why a proxy may not connect.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unauthenticated(String),
    /// Not now: it may come again.
    #[error("{0}")]
    NotReady(String),
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(message) => Self::invalid_argument(message),
            Refusal::Denied(message) => Self::permission_denied(message),
            Refusal::Unauthenticated(message) => Self::unauthenticated(message),
            Refusal::NotReady(message) => Self::unavailable(message),
        }
    }
}

/// What all streams of a process share.
#[derive(Clone)]
pub struct Server {
    source: Arc<dyn Source>,
    memo: Arc<Memo>,
    encoder: Arc<Encoder>,
    /// Whether connections come over TLS.
    tls: bool,
}

impl Server {
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self { source, memo: Arc::default(), encoder: Arc::default(), tls: true }
    }

    /// The same server for a listener without TLS; clients are who they say they are.
    #[must_use]
    pub fn plaintext(mut self) -> Self {
        self.tls = false;
        self
    }

    /// Gives memory back that the last busy moment needed. Called every few seconds.
    pub fn release_idle(&self) {
        self.encoder.release_idle();
    }

    /// The service's routes, for [`crate::runtime::tls::serve`].
    pub fn router(self) -> Router {
        const SERVICE: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
        Router::new()
            .route(&format!("{SERVICE}/DeltaAggregatedResources"), post(delta))
            .route(&format!("{SERVICE}/StreamAggregatedResources"), post(state_of_the_world))
            .with_state(self)
    }
}

/// A request with tens of thousands of names fits; anything larger is a mistake.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

async fn delta(State(server): State<Server>, request: Request) -> Response {
    serve::<DeltaDiscoveryRequest>(&server, request, Variant::Delta)
}

async fn state_of_the_world(State(server): State<Server>, request: Request) -> Response {
    serve::<DiscoveryRequest>(&server, request, Variant::StateOfTheWorld)
}

fn serve<M: stream::Incoming>(server: &Server, request: Request, variant: Variant) -> Response {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        let sentence = "this is a gRPC service: the content type must be application/grpc\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, sentence).into_response();
    }
    let (parts, body) = request.into_parts();
    let peer = if server.tls {
        let shown = parts.extensions.get::<PeerCertificates>().cloned();
        Peer::Tls(shown.unwrap_or_else(|| PeerCertificates(Arc::from([]))))
    } else {
        Peer::Plaintext
    };
    let decoder = ProstDecoder::<M>::default();
    let requests = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST));
    let leaving = parts.extensions.get::<Leaving>().cloned();
    let end = parts.extensions.get::<ConnectionEnd>().cloned().unwrap_or_default();
    let stream = stream::Stream::new(server.clone(), requests, peer, leaving, variant, end);
    let mut response = Response::new(Body::new(stream.into_body()));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}
