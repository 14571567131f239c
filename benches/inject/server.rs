//! The webhook as the operator serves it, with one installation and one labelled namespace.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use axum::body::Body;
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Client, Config,
    core::PartialObjectMeta,
    runtime::{events::Recorder, reflector, watcher},
};
use meshwright::{
    api::meshwright::MeshInstallationSpec,
    runtime::tls::{self, LiveTls},
    webhook::{
        events::Events,
        inject::{InjectConfig, ProxySettings},
        metrics::Metrics,
        server::{Installations, Namespaces, Webhooks, router},
    },
};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::TcpListener;
use tower::ServiceExt;

use crate::pods;

/// Prints its address and its certificate, and serves until it is killed.
pub fn run() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve())
}

async fn serve() -> anyhow::Result<()> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let mut out = std::io::stdout();
    writeln!(out, "{}\n{}", listener.local_addr()?, certified.cert.pem())?;
    out.flush()?;
    let routes = router(webhooks()?);
    tls::serve(listener, Arc::new(LiveTls::new(config)), routes, std::future::pending()).await;
    Ok(())
}

/// The same without a network, for profilers that count instructions.
pub fn rounds(count: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (routes, review) = (router(webhooks()?), pods::review(&pods::one_container()));
        for _ in 0..count {
            let request = Request::post("/inject/default").body(Body::from(review.clone()))?;
            let answer = routes.clone().oneshot(request).await?;
            anyhow::ensure!(answer.status() == StatusCode::OK);
            axum::body::to_bytes(answer.into_body(), usize::MAX).await?;
        }
        Ok(())
    })
}

fn webhooks() -> anyhow::Result<Webhooks> {
    let (cache, mut writer) = reflector::store();
    let mut shop = PartialObjectMeta::<Namespace>::default();
    shop.metadata.name = Some("shop".to_owned());
    shop.metadata.labels =
        Some([("meshwright.dev/injection".to_owned(), "enabled".to_owned())].into());
    writer.apply_watcher_event(&watcher::Event::Apply(shop));
    let installations =
        Installations { objects: Vec::new(), inject: [("default".to_owned(), config())].into() };
    // Never asked: the cache knows the namespace.
    let client = Client::try_from(Config::new("http://127.0.0.1:1".parse()?))?;
    // Nothing is skipped that asked, so there is nothing to tell.
    let (events, _) = Events::new(Recorder::new(client.clone(), "meshwright-operator".into()));
    Ok(Webhooks {
        events,
        installations: Arc::new(ArcSwap::from_pointee(installations)),
        namespaces: Namespaces { cache, client },
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
    })
}

fn config() -> InjectConfig {
    let spec = MeshInstallationSpec::default();
    InjectConfig {
        revision: spec.revision.clone(),
        tags: Vec::new(),
        system_namespace: "meshwright-system".to_owned(),
        istio_labels: true,
        injection: spec.injection.clone(),
        proxy: ProxySettings::new(
            &spec,
            "registry.test/meshwright-proxy:1".to_owned(),
            "IfNotPresent",
            "meshwright-control-plane.meshwright-system.svc:15012".to_owned(),
            true,
        ),
    }
}
