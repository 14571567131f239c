//! Takes traces, as Zipkin and as OpenTelemetry's collector do, and shows what it has.

use std::convert::Infallible;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::lifecycle::{self, Phase};
use crate::serve::http::json_reply;
use crate::server::{Versions, accept, listen, serve_http};

/// Spans and exports that are kept, of each the newest.
const KEPT: usize = 500;
const OTLP_EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[derive(clap::Args)]
pub struct Args {
    /// Port for Zipkin's JSON, OpenTelemetry's gRPC, and `GET /collected`
    #[arg(long, default_value_t = 9411, value_name = "PORT")]
    listen: u16,
}

#[derive(Default)]
struct Collected {
    spans: Vec<Value>,
    /// Exports of OpenTelemetry, as far as they are text: names and values stand in it as they are.
    exports: Vec<String>,
}

type Reply = Response<BoxBody<Bytes, Infallible>>;

/// Collects until SIGTERM.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let listener = listen(args.listen).await?;
    let collected = Arc::new(Mutex::new(Collected::default()));
    let (advance, phase) = watch::channel(Phase::Serving);
    let phases = phase.clone();
    let serving = tokio::spawn(accept(listener, phase, move |stream, _| {
        let collected = collected.clone();
        let service = service_fn(move |request| {
            let collected = collected.clone();
            async move { Ok::<_, Infallible>(handle(&collected, request).await) }
        });
        serve_http(stream, service, Versions::Any, phases.clone())
    }));
    lifecycle::terminated().await?;
    advance.send_replace(Phase::Stopping);
    serving.await?;
    Ok(ExitCode::SUCCESS)
}

async fn handle(collected: &Mutex<Collected>, request: Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut collected = collected.lock().unwrap_or_else(PoisonError::into_inner);
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/api/v2/spans") => match serde_json::from_slice::<Vec<Value>>(&body) {
            Ok(spans) => {
                collected.spans.extend(spans);
                keep(&mut collected.spans);
                reply(StatusCode::ACCEPTED, &json!({}))
            }
            Err(error) => reply(StatusCode::BAD_REQUEST, &json!({"error": error.to_string()})),
        },
        (&Method::POST, OTLP_EXPORT) => {
            collected.exports.push(String::from_utf8_lossy(&body).into_owned());
            keep(&mut collected.exports);
            exported()
        }
        (&Method::GET, "/collected") => {
            let shown = json!({"spans": collected.spans, "exports": collected.exports});
            reply(StatusCode::OK, &shown)
        }
        _ => reply(StatusCode::NOT_FOUND, &json!({"error": "no such path"})),
    }
}

fn keep<T>(list: &mut Vec<T>) {
    list.drain(..list.len().saturating_sub(KEPT));
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    json_reply(status, body).map(Full::boxed)
}

/// gRPC's answer to an export: an empty message, and that all is well.
fn exported() -> Reply {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::from(Bytes::from_static(&[0; 5]));
    let mut reply =
        Response::new(body.with_trailers(std::future::ready(Some(Ok(trailers)))).boxed());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_are_kept() {
        let mut list: Vec<usize> = (0..KEPT + 3).collect();
        keep(&mut list);
        assert_eq!((list.len(), list[0]), (KEPT, 3));
    }

    #[tokio::test]
    async fn an_export_is_answered_as_grpc_wants_it() {
        let body = exported().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), Bytes::from_static(&[0; 5]));
    }
}
