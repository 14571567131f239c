//! An aggregated discovery service as Envoy and the agent ask it: delta streams of clients that show
//! a certificate. What it answers is the test's.

use std::pin::Pin;

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::AggregatedDiscoveryService,
};
use futures::Stream;
use meshwright::{ca::Certificate, runtime::tls::PeerCertificates};
use tonic::{Request, Response, Status, Streaming};

pub type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is said on a stream.
pub trait Converse: Send + Sync + 'static {
    /// `identity`: the client's, as a URI.
    fn converse(
        &self,
        identity: String,
        requests: Streaming<DeltaDiscoveryRequest>,
    ) -> Responses<DeltaDiscoveryResponse>;
}

pub struct Ads<C>(pub C);

#[tonic::async_trait]
impl<C: Converse> AggregatedDiscoveryService for Ads<C> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = request.extensions().get::<PeerCertificates>();
        let leaf = peer.and_then(|peer| peer.0.first());
        let leaf = leaf.ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let identity = Certificate::from_der(leaf, "peer").unwrap().identity().unwrap().to_string();
        Ok(Response::new(self.0.converse(identity, request.into_inner())))
    }
}
