//! `grpc.health.v1.Health`, which the kubelet's gRPC probes call.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, stream};
use tonic::body::Body;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::grpc::Route;
use crate::serve::App;

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    pub status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
}

fn response(ready: bool) -> HealthCheckResponse {
    let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status as i32 }
}

/// The server's side: follows the same switch as `/healthz`.
#[derive(Clone)]
pub struct Health {
    app: Arc<App>,
}

impl Health {
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

impl Route for Health {
    const NAME: &'static str = "grpc.health.v1.Health";

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
        match request.uri().path() {
            "/grpc.health.v1.Health/Check" => grpc.unary(Check(self.app), request).await,
            "/grpc.health.v1.Health/Watch" => grpc.server_streaming(Watch(self.app), request).await,
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

struct Check(Arc<App>);

impl tonic::server::UnaryService<HealthCheckRequest> for Check {
    type Response = HealthCheckResponse;
    type Future = std::future::Ready<Result<Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, _: Request<HealthCheckRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(response(self.0.is_ready()))))
    }
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

struct Watch(Arc<App>);

impl tonic::server::ServerStreamingService<HealthCheckRequest> for Watch {
    type Response = HealthCheckResponse;
    type ResponseStream = Statuses;
    type Future = std::future::Ready<Result<Response<Statuses>, Status>>;

    fn call(&mut self, _: Request<HealthCheckRequest>) -> Self::Future {
        // The first status goes out at once, each later one when the switch moves.
        let statuses = stream::unfold((self.0.readiness(), true), async |(mut ready, first)| {
            if !first {
                ready.changed().await.ok()?;
            }
            let now = *ready.borrow_and_update();
            Some((Ok(response(now)), (ready, false)))
        });
        std::future::ready(Ok(Response::new(Box::pin(statuses) as Statuses)))
    }
}
