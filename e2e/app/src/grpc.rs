//! What tonic's generated code would do for a service: a name, and a function from request to
//! response.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

/// A gRPC service written by hand.
pub trait Route: Clone + Send + Sync + 'static {
    /// Full name of the service, the first segment of its paths.
    const NAME: &'static str;

    fn answer(
        self,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<Body>> + Send;
}

/// Makes a [`Route`] what tonic's server takes.
#[derive(Clone)]
pub struct Routed<R>(pub R);

impl<R: Route> NamedService for Routed<R> {
    const NAME: &'static str = R::NAME;
}

impl<R: Route> Service<http::Request<Body>> for Routed<R> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let route = self.0.clone();
        Box::pin(async move { Ok(route.answer(request).await) })
    }
}

/// A transport error with its causes, which `Status::from_error` would hide behind "transport error".
pub fn clip(error: tonic::transport::Error) -> Status {
    Status::unavailable(format!("{:#}", anyhow::Error::new(error)))
}
