//! One client's stream: requests and changes of its view in, frames of the response body out.

use std::{collections::VecDeque, convert::Infallible, fmt::Debug, sync::Arc};

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use futures::stream;
use http::HeaderMap;
use http_body_util::StreamBody;
use hyper::body::Frame;
use prost::Message;
use tokio::{sync::watch, time::Instant};
use tonic::{Status, codec::Streaming};

use super::{Peer, Proxy, Server};
use crate::{
    runtime::tls::{ConnectionEnd, Leaving},
    xds::{
        Request, Session, Variant,
        session::{Outcome, Response},
    },
};

const STOPPING: &str = "the control plane is stopping";

/// A request message of either variant.
pub(super) trait Incoming: Message + Default + Into<Request> + Debug + 'static {
    fn take_node(&mut self) -> Option<Node>;
}

impl Incoming for DeltaDiscoveryRequest {
    fn take_node(&mut self) -> Option<Node> {
        self.node.take()
    }
}

impl Incoming for DiscoveryRequest {
    fn take_node(&mut self) -> Option<Node> {
        self.node.take()
    }
}

pub(super) struct Stream<M> {
    server: Server,
    requests: Streaming<M>,
    peer: Peer,
    leaving: Option<Leaving>,
    session: Session,
    /// From the first request on, which names the node.
    connected: Option<Connected>,
    connection: ConnectionEnd,
    frames: VecDeque<Frame<Bytes>>,
    ended: bool,
}

struct Connected {
    proxy: Box<dyn Proxy>,
    updates: watch::Receiver<u64>,
    reconnect_at: Option<Instant>,
}

enum Event<M> {
    Request(M),
    Update,
    /// The client closed its side, or broke the protocol.
    End(Status),
}

impl<M: Incoming> Stream<M> {
    pub(super) fn new(
        server: Server,
        requests: Streaming<M>,
        peer: Peer,
        leaving: Option<Leaving>,
        variant: Variant,
        connection: ConnectionEnd,
    ) -> Self {
        let session = Session::new(variant, Arc::clone(&server.memo));
        Self {
            server,
            requests,
            peer,
            leaving,
            session,
            connected: None,
            connection,
            frames: VecDeque::new(),
            ended: false,
        }
    }

    pub(super) fn into_body(
        self,
    ) -> StreamBody<impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send> {
        StreamBody::new(stream::unfold(self, |mut stream| async move {
            let frame = stream.next_frame().await?;
            Some((Ok(frame), stream))
        }))
    }

    async fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.ended {
                return None;
            }
            let outcome = match self.next_event().await {
                Event::Request(request) => self.on_request(request),
                Event::Update => Ok(self.on_update()),
                Event::End(status) => Err(status),
            };
            match outcome {
                Ok(outcome) => self.carry_out(&outcome),
                Err(status) => self.end(&status),
            }
        }
    }

    async fn next_event(&mut self) -> Event<M> {
        let reconnect_at = self.connected.as_ref().and_then(|connected| connected.reconnect_at);
        let aged = async {
            match reconnect_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let updated = async {
            match &mut self.connected {
                Some(connected) => connected.updates.changed().await,
                None => std::future::pending().await,
            }
        };
        let told_to_leave = async {
            match &mut self.leaving {
                Some(Leaving(leaving)) => drop(leaving.wait_for(|leaving| *leaving).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = self.requests.message() => match request {
                Ok(Some(request)) => Event::Request(request),
                Ok(None) => Event::End(Status::ok("")),
                Err(status) => Event::End(status),
            },
            updated = updated => match updated {
                Ok(()) => Event::Update,
                Err(_) => Event::End(Status::unavailable(STOPPING)),
            },
            () = aged => {
                // A new stream of the same connection would show the same certificate.
                self.connection.begin();
                Event::End(Status::unavailable("come back with the renewed certificate"))
            }
            // A connection that is to end waits for its streams, and Envoy keeps a stream as long as
            // it can. Ended by us, it looks for another replica at once.
            () = told_to_leave => Event::End(Status::unavailable(STOPPING)),
        }
    }

    fn on_request(&mut self, mut message: M) -> Result<Outcome, Status> {
        let node = message.take_node();
        if self.connected.is_none() {
            self.connect(&node.unwrap_or_default())?;
        }
        let request: Request = message.into();
        if let Some(error) = &request.error {
            tracing::warn!(kind = ?request.kind, error, "a proxy refuses configuration");
        }
        let unsettled = !self.session.is_settled();
        let outcome = self.session.on_request(request);
        if let Some(connected) = &mut self.connected
            && unsettled
            && outcome.responses.is_empty()
            && self.session.is_settled()
        {
            connected.proxy.settled();
        }
        Ok(outcome)
    }

    fn connect(&mut self, node: &Node) -> Result<(), Status> {
        let mut proxy = self.server.source.connect(node, &self.peer)?;
        let mut updates = proxy.updates();
        updates.borrow_and_update();
        // No subscription yet, so there is nothing to send.
        self.session.on_view(proxy.view());
        let reconnect_at = proxy.reconnect_at().map(Instant::from_std);
        self.connected = Some(Connected { proxy, updates, reconnect_at });
        Ok(())
    }

    fn on_update(&mut self) -> Outcome {
        match &mut self.connected {
            Some(connected) => self.session.on_view(connected.proxy.view()),
            None => Outcome::default(),
        }
    }

    fn carry_out(&mut self, outcome: &Outcome) {
        for response in &outcome.responses {
            self.send(response);
        }
        if outcome.rejections_changed
            && let Some(connected) = &mut self.connected
        {
            connected.proxy.rejected(self.session.rejections().cloned().collect());
        }
    }

    fn send(&mut self, response: &Response) {
        let pieces = self.server.encoder.encode(response);
        if let Some(connected) = &mut self.connected {
            connected.proxy.sent(response.kind, pieces.iter().map(Bytes::len).sum());
        }
        self.frames.extend(pieces.into_iter().map(Frame::data));
    }

    fn end(&mut self, status: &Status) {
        let mut trailers = HeaderMap::new();
        if let Err(error) = status.add_header(&mut trailers) {
            tracing::debug!(%error, "a status does not fit into trailers");
        }
        self.frames.push_back(Frame::trailers(trailers));
        self.ended = true;
        self.connected = None;
    }
}
