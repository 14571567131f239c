//! The admin server: `/livez`, `/readyz`, `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context;
use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{StatusCode, header};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{net::TcpListener, sync::watch};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug)]
struct Admin {
    registry: Arc<Registry>,
    ready: watch::Receiver<bool>,
}

/// The routes alone, for roles that serve them elsewhere.
pub fn router(registry: Arc<Registry>, ready: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Admin { registry, ready })
}

/// Serves until the process ends.
pub async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    ready: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for /metrics and health checks"))?;
    axum::serve(listener, router(registry, ready)).await.context("the admin server failed")
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if *admin.ready.borrow() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready yet\n")
    }
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut body = String::new();
    match text::encode(&mut body, &admin.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use prometheus_client::metrics::counter::Counter;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn is_ready_when_told_and_prints_metrics() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("pushes", "Responses sent", counter.clone());
        counter.inc();
        let (ready, readiness) = watch::channel(false);
        let router = router(Arc::new(registry), readiness);
        let get = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request)
        };
        assert_eq!(get("/readyz").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        ready.send_replace(true);
        assert_eq!(get("/readyz").await.unwrap().status(), StatusCode::OK);
        assert_eq!(get("/livez").await.unwrap().status(), StatusCode::OK);
        let body = get("/metrics").await.unwrap().into_body();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        assert!(String::from_utf8_lossy(&body).contains("pushes_total 1"));
    }
}
