//! TLS for servers.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// The certificates that the other side of a connection presented and the handshake verified, the
/// leaf first. A request extension.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);
