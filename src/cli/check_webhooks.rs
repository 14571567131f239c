//! `meshwright check-webhooks`: whether the operator's webhooks answer, asked as the API server asks
//! them. It is what `helm test` runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::Api;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use super::printer::Printer;
use crate::{operator::VALIDATOR, runtime::kube_client};

/// For one connection with one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Command-line arguments of the verb.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Cluster to look at; the one around this process, or kubectl's, if not given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Seconds to go on trying
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
}

/// Checks them and says what came of it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let address = runtime.context("cannot start a thread")?.block_on(check(args))?;
    Printer::default().print(&format!("the operator's webhooks answer at {address}\n"))
}

async fn check(args: &Args) -> anyhow::Result<String> {
    let client = kube_client(args.kubeconfig.as_deref()).await?;
    let configurations = Api::<ValidatingWebhookConfiguration>::all(client);
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let outcome = once(&configurations).await;
        if outcome.is_ok() || Instant::now() >= deadline {
            return outcome;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn once(configurations: &Api<ValidatingWebhookConfiguration>) -> anyhow::Result<String> {
    let found = configurations.get_opt(VALIDATOR).await;
    let configuration = found
        .with_context(|| format!("cannot read ValidatingWebhookConfiguration {VALIDATOR}"))?
        .with_context(|| format!("there is no ValidatingWebhookConfiguration {VALIDATOR}: the operator registers it when it starts, so look at its pods"))?;
    let webhook = configuration.webhooks.into_iter().flatten().next();
    let webhook = webhook.with_context(|| format!("{VALIDATOR} has no webhooks"))?;
    let target = Target::new(&webhook.client_config)?;
    target.judges().await?;
    Ok(target.address())
}

/// Where the API server finds a webhook, and whom it trusts there.
struct Target {
    host: String,
    port: u16,
    path: String,
    tls: Arc<ClientConfig>,
}

impl Target {
    fn new(config: &WebhookClientConfig) -> anyhow::Result<Self> {
        let ca = config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.context("the webhook's CA bundle is not PEM")?)?;
        }
        ensure!(
            !roots.is_empty(),
            "{VALIDATOR} names no CA: the API server cannot trust the webhook"
        );
        let tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tls = Arc::new(tls);
        if let Some(service) = &config.service {
            let host = format!("{}.{}.svc", service.name, service.namespace);
            let port = u16::try_from(service.port.unwrap_or(443))?;
            return Ok(Self { host, port, path: service.path.clone().unwrap_or_default(), tls });
        }
        let url = config.url.as_deref().unwrap_or_default();
        let uri: Uri = url.parse().with_context(|| format!("{url:?} is not a URL"))?;
        let host = uri.host().with_context(|| format!("{url:?} names no host"))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(443), path: uri.path().to_owned(), tls })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// One object that is right and one that is wrong: an answer that does not depend on the question
    /// is none.
    async fn judges(&self) -> anyhow::Result<()> {
        for (lifetime, right) in [("24h", true), ("soon", false)] {
            let review = review(lifetime);
            let answer = tokio::time::timeout(TIMEOUT, self.ask(&review))
                .await
                .map_err(|_| anyhow!("no answer within {} s", TIMEOUT.as_secs()))
                .flatten()
                .with_context(|| format!("the webhook at {} does not work", self.address()))?;
            match answer["response"]["allowed"].as_bool() {
                Some(allowed) if allowed == right => {}
                Some(true) => bail!("the webhook allows a MeshInstallation that is not valid"),
                _ => bail!("the webhook refuses a MeshInstallation that is valid: {answer}"),
            }
        }
        Ok(())
    }

    async fn ask(&self, review: &Value) -> anyhow::Result<Value> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone())?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::post(&self.path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(review.to_string())))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        ensure!(status == StatusCode::OK, "HTTP {status}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).context("the answer is not JSON")
    }
}

/// What the API server would send about a MeshInstallation with this lifetime of certificates.
fn review(lifetime: &str) -> Value {
    let name = "check-webhooks";
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": name, "name": name, "operation": "CREATE", "dryRun": true,
            "kind": {"group": "meshwright.dev", "version": "v1alpha1", "kind": "MeshInstallation"},
            "object": {
                "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
                "metadata": {"name": name},
                "spec": {"revision": name, "proxy": {"certificateTtl": lifetime}},
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Bytes, extract::rejection::BytesRejection, routing::post};
    use k8s_openapi::ByteString;
    use time::OffsetDateTime;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        runtime::tls::{self, LiveTls},
        webhook::{
            certificate::Bundle,
            review::{self, Answer},
            validate,
        },
    };

    /// A webhook on the loopback, trusted by the CA of `trusted` (0: its own).
    async fn target(routes: Router, trusted: usize) -> Target {
        crate::runtime::install_crypto_provider();
        let names = ["localhost".to_owned()].into();
        let issue = || Bundle::issue(&names, OffsetDateTime::now_utc(), None).unwrap();
        let bundles = [issue(), issue()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/validate", listener.local_addr().unwrap().port());
        let live = Arc::new(LiveTls::new(bundles[0].server_config().unwrap()));
        tokio::spawn(tls::serve(listener, live, routes, std::future::pending()));
        let ca_bundle = Some(ByteString(bundles[trusted].ca.clone().into_bytes()));
        Target::new(&WebhookClientConfig { ca_bundle, service: None, url: Some(url) }).unwrap()
    }

    fn ours() -> Router {
        let check = |body: Result<Bytes, BytesRejection>| async {
            review::answer(
                body,
                |request| async move { validate::answer(&request, std::iter::empty()) },
            )
            .await
        };
        Router::new().route("/validate", post(check))
    }

    fn always(answer: Answer) -> Router {
        let check = |body: Result<Bytes, BytesRejection>| async move {
            review::answer(body, |_| async move { answer }).await
        };
        Router::new().route("/validate", post(check))
    }

    #[tokio::test]
    async fn what_validates_passes() {
        target(ours(), 0).await.judges().await.unwrap();
    }

    #[tokio::test]
    async fn what_does_not_judge_or_cannot_be_trusted_does_not() {
        let cases = [
            (always(Answer::allow()), 0, "allows a MeshInstallation that is not valid"),
            (always(Answer::deny("no".to_owned())), 0, "refuses a MeshInstallation that is valid"),
            (Router::new(), 0, "404"),
            (ours(), 1, "certificate"),
        ];
        for (routes, trusted, why) in cases {
            let error = target(routes, trusted).await.judges().await.unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }

    #[test]
    fn a_service_is_asked_by_its_name() {
        crate::runtime::install_crypto_provider();
        let names = ["x".to_owned()].into();
        let bundle = Bundle::issue(&names, OffsetDateTime::now_utc(), None).unwrap();
        let mut config = WebhookClientConfig {
            ca_bundle: Some(ByteString(bundle.ca.into_bytes())),
            service: Some(k8s_openapi::api::admissionregistration::v1::ServiceReference {
                name: "meshwright-operator".to_owned(),
                namespace: "mesh".to_owned(),
                path: Some("/validate".to_owned()),
                port: None,
            }),
            url: None,
        };
        let target = Target::new(&config).unwrap();
        assert_eq!(target.address(), "meshwright-operator.mesh.svc:443");
        config.ca_bundle = None;
        assert!(Target::new(&config).is_err());
    }
}
