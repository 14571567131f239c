//! Who is asking for a certificate.

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{ca::Certificate, identity::SpiffeId};

/// Why a caller is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("the request carries neither a bearer token nor a client certificate")]
    NoCredential,
    #[error("the token was refused: {0}")]
    Token(String),
    #[error("the token is that of {0:?}, not of a service account")]
    NotAServiceAccount(String),
    #[error("the client certificate was refused: {0}")]
    Certificate(&'static str),
    /// Not the caller's fault: it may try again.
    #[error("the token cannot be reviewed now")]
    Unavailable(#[source] Box<kube::Error>),
}

/// Turns a bearer token into the identity of its owner.
#[tonic::async_trait]
pub trait Authenticate: Send + Sync + 'static {
    async fn authenticate(&self, token: &str) -> Result<SpiffeId, Refused>;
}

/// The token of an `authorization: Bearer …` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The identity in a client certificate that the TLS handshake verified. A connection may outlive
/// the certificate, so its dates are looked at again.
pub(super) fn certified(
    peer: &[CertificateDer<'_>],
    trust_domain: &str,
    now: OffsetDateTime,
) -> Result<SpiffeId, Refused> {
    let leaf = peer.first().ok_or(Refused::NoCredential)?;
    let leaf = Certificate::from_der(leaf, "the client certificate")
        .map_err(|_| Refused::Certificate("it cannot be read"))?;
    if now > leaf.not_after {
        return Err(Refused::Certificate("it has expired"));
    }
    let identity = leaf
        .identity()
        .ok_or(Refused::Certificate("it does not name exactly one workload identity"))?;
    if identity.trust_domain != trust_domain {
        return Err(Refused::Certificate("it is of another trust domain"));
    }
    Ok(identity.clone())
}

/// The identity behind a Kubernetes user name.
pub(super) fn service_account(user: &str, trust_domain: &str) -> Result<SpiffeId, Refused> {
    let parts: Vec<&str> = user.split(':').collect();
    let ["system", "serviceaccount", namespace, name] = parts[..] else {
        return Err(Refused::NotAServiceAccount(user.to_owned()));
    };
    if namespace.is_empty() || name.is_empty() {
        return Err(Refused::NotAServiceAccount(user.to_owned()));
    }
    Ok(SpiffeId {
        trust_domain: trust_domain.to_owned(),
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_bearer_headers() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for other in ["", "Bearer", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(bearer(other), None, "{other:?}");
        }
    }

    #[test]
    fn only_service_accounts_get_certificates() {
        let id = service_account("system:serviceaccount:shop:cart", "td").unwrap();
        assert_eq!(id.to_string(), "spiffe://td/ns/shop/sa/cart");
        for user in [
            "admin",
            "system:node:a",
            "system:serviceaccount:shop",
            "system:serviceaccount::x",
            "system:serviceaccount:a:b:c",
        ] {
            assert!(service_account(user, "td").is_err(), "{user}");
        }
    }
}
