//! Connections to the control plane, which is the CA too.

use std::{sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::{
    agent::{Settings, identity::Issued},
    ca::certificates_in_pem,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A control plane that vanished without a word is noticed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What may be under way to us: the default is megabytes, for throughput that no agent needs.
const WINDOW: u32 = 256 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the address {0:?} cannot be used; the injector sets MESHWRIGHT_DISCOVERY_ADDRESS")]
    Address(String),
    #[error("the pod's certificates cannot be used")]
    Certificates(#[source] crate::ca::Error),
    #[error("the pod's private key cannot be used: {0}")]
    Key(rustls::pki_types::pem::Error),
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot reach {address}")]
    Unreachable { address: String, source: tonic::transport::Error },
}

/// `HOST:PORT` of the control plane, for messages.
pub(super) fn address(settings: &Settings) -> String {
    format!("{}:{}", settings.discovery.host, settings.discovery.port)
}

/// Connects by TLS, and believes only a server whose certificate `roots` vouch for. Shows the pod's
/// `own` certificate where there is one.
pub(super) async fn connect(
    settings: &Settings,
    roots: &str,
    own: Option<&Issued>,
) -> Result<Channel, Error> {
    let (discovery, address) = (&settings.discovery, address(settings));
    let unusable = || Error::Address(address.clone());
    let name = ServerName::try_from(discovery.host.clone()).map_err(|_| unusable())?;
    let tls = TlsConnector::from(Arc::new(client_config(roots, own)?));
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
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Unreachable { address, source })
}

fn client_config(roots: &str, own: Option<&Issued>) -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    for root in certificates_in_pem(roots, "root-cert.pem").map_err(Error::Certificates)? {
        store.add(root).map_err(Error::Tls)?;
    }
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(store);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = certificates_in_pem(&own.chain_pem, "the workload's certificate")
                .map_err(Error::Certificates)?;
            let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).map_err(Error::Key)?;
            builder.with_client_auth_cert(chain, key).map_err(Error::Tls)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
