//! One call to the CA, on a connection of its own: they are half a day apart.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::{
    agent::{Settings, identity::Error},
    ca::{
        certificates_in_pem,
        protocol::{IstioCertificateRequest, IstioCertificateServiceClient},
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for a certificate; the answer is the chain in PEM, the leaf first and the root last.
pub(super) async fn create_certificate(
    settings: &Settings,
    roots: &str,
    token: &str,
    csr: String,
) -> Result<Vec<String>, Error> {
    let address = format!("{}:{}", settings.discovery.host, settings.discovery.port);
    let refused = |message: String| Error::Refused { address: address.clone(), message };
    let channel = connect(settings, roots, &address).await?;
    let validity = i64::try_from(settings.certificate_ttl.as_secs()).unwrap_or(i64::MAX);
    let mut request =
        Request::new(IstioCertificateRequest { csr, validity_duration: validity, metadata: None });
    let bearer = format!("Bearer {token}");
    let bearer = bearer.parse().map_err(|_| refused("the token is not text".to_owned()))?;
    request.metadata_mut().insert("authorization", bearer);
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
    answer
        .map(|response| response.into_inner().cert_chain)
        .map_err(|status| refused(status.message().to_owned()))
}

/// Connects by TLS, and believes only a server whose certificate the mounted roots vouch for.
async fn connect(settings: &Settings, roots: &str, address: &str) -> Result<Channel, Error> {
    let discovery = &settings.discovery;
    let unusable = || Error::Address(address.to_owned());
    let name = ServerName::try_from(discovery.host.clone()).map_err(|_| unusable())?;
    let tls = TlsConnector::from(Arc::new(client_config(settings, roots)?));
    let target = (discovery.lookup_name(&settings.cluster_domain), discovery.port);
    let connector = tower::service_fn(move |_: http::Uri| {
        let (tls, name, target) = (tls.clone(), name.clone(), target.clone());
        async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    // The scheme is about tonic's own TLS, which is not used.
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| unusable())?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Unreachable { address: address.to_owned(), source })
}

fn client_config(settings: &Settings, roots: &str) -> Result<ClientConfig, Error> {
    let path = settings.roots_file();
    let certificates = certificates_in_pem(roots, "root-cert.pem")
        .map_err(|source| Error::Roots { path, source })?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(Error::Tls)?;
    }
    let mut config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
