//! Envoy's secrets over a Unix socket: the service around the [`session`], which does no I/O.

use std::{io, path::Path, pin::Pin};

use envoy_types::pb::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use futures::{Stream, StreamExt};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::agent::{
    identity::Secrets,
    sds::session::{Delta, Protocol, StateOfTheWorld},
};

mod session;

/// Serves secrets on the socket. Returns only on failure.
pub(super) async fn serve(
    socket: UnixListener,
    secrets: watch::Receiver<Secrets>,
) -> Result<(), tonic::transport::Error> {
    tonic::transport::Server::builder()
        .add_service(SecretDiscoveryServiceServer::new(Service { secrets }))
        .serve_with_incoming(UnixListenerStream::new(socket))
        .await
}

/// Binds the socket, in place of one that an earlier run of this container left.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

struct Service {
    secrets: watch::Receiver<Secrets>,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    /// One stream: answers requests, and pushes when a secret has changed.
    fn stream<P: Protocol>(
        &self,
        mut session: P,
        mut requests: Streaming<P::Request>,
    ) -> Responses<P::Response> {
        let (sender, receiver) = mpsc::channel(1);
        let mut secrets = self.secrets.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    request = requests.next() => match request {
                        Some(Ok(request)) => session.take(request),
                        Some(Err(_)) | None => return,
                    },
                    changed = secrets.changed() => if changed.is_err() { return },
                }
                let due = session.due(&secrets.borrow_and_update());
                if let Some(response) = due
                    && sender.send(Ok(response)).await.is_err()
                {
                    return;
                }
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(self.stream(Delta::default(), request.into_inner())))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(self.stream(StateOfTheWorld::default(), request.into_inner())))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed"))
    }
}

#[cfg(test)]
mod tests;
