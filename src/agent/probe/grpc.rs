//! gRPC probes: the standard health service.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderValue, Uri, uri::PathAndQuery};
use hyper_util::rt::TokioIo;

use super::{Grpc, Outcome};
use crate::agent::fetch::connect_app;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthCheckResponse.ServingStatus`, by number.
const STATUS: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: i32 = 1;

pub(super) async fn run(
    grpc: &Grpc,
    pod: IpAddr,
    user_agent: Option<&HeaderValue>,
) -> Result<Outcome, String> {
    let to = SocketAddr::new(pod, grpc.port);
    match health_check(grpc, to, user_agent).await? {
        SERVING => Ok(Outcome::healthy()),
        other => {
            let name = usize::try_from(other).ok().and_then(|number| STATUS.get(number));
            let name = name.map_or_else(|| other.to_string(), |name| (*name).to_owned());
            Err(format!("the service's health status is {name}"))
        }
    }
}

async fn health_check(
    grpc: &Grpc,
    to: SocketAddr,
    user_agent: Option<&HeaderValue>,
) -> Result<i32, String> {
    let text = |error: tonic::transport::Error| error.to_string();
    let connector = tower::service_fn(move |_: Uri| async move {
        std::io::Result::Ok(TokioIo::new(connect_app(to).await?))
    });
    let mut endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{to}")).map_err(text)?;
    if let Some(agent) = user_agent {
        endpoint = endpoint.user_agent(agent.clone()).map_err(text)?;
    }
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
        // What the connector says is the cause of what the channel says.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    })?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(text)?;
    let request = HealthCheckRequest { service: grpc.service.clone().unwrap_or_default() };
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    match client.unary(tonic::Request::new(request), path, codec).await {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if status.code() == tonic::Code::Unimplemented => {
            Err("the application does not implement grpc.health.v1.Health".to_owned())
        }
        Err(status) => Err(format!("the health check failed: {status}")),
    }
}
