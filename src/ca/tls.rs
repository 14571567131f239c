//! The control plane's TLS: its own certificate, and callers verified by the mesh's roots.

use std::sync::Arc;

use rustls::{RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier};
use time::OffsetDateTime;

use crate::ca::{Authority, Error, Result};

/// A server configuration that shows a fresh certificate for `names` and asks clients for theirs.
///
/// A client without one is let in, as a new pod has only its token; what may be done without a
/// certificate is up to each service. A certificate that the roots do not vouch for is refused.
pub fn server_config(
    authority: &Authority,
    names: &[String],
    now: OffsetDateTime,
) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
        roots.add(root.clone()).map_err(Error::Tls)?;
    }
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(Error::Verifier)?;
    let own = authority.server_certificate(names, now)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_client_cert_verifier(clients)
        .with_single_cert(own.chain, own.key)
        .map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
