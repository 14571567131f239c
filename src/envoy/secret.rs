//! Certificates of gateways.

use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret},
};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::names;
use crate::{mesh::Key, watch::snapshot::TlsSecret, xds::Resource};

/// Secrets of type `kubernetes.io/tls`, as the snapshot has them.
pub type Secrets = BTreeMap<Key, Arc<TlsSecret>>;

/// Why a Secret cannot be served with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unusable {
    #[error("there is no such Secret of type kubernetes.io/tls")]
    Absent,
    #[error("its tls.crt is no PEM certificate")]
    Certificate,
    #[error("its tls.key is no PEM private key that TLS can use")]
    PrivateKey,
    #[error("its tls.key does not belong to its tls.crt")]
    Mismatch,
}

/// The resource of a Secret. Envoy would refuse one that it cannot read, and a gateway would be
/// left without its other certificates' changes too, so these are not sent.
pub fn resource(key: &Key, secrets: &Secrets) -> Result<Resource, Unusable> {
    let secret = secrets.get(key).ok_or(Unusable::Absent)?;
    check(secret)?;
    let inline = |bytes: &[u8]| DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
        ..DataSource::default()
    };
    Ok(Resource::encode(&Secret {
        name: names::secret(key),
        r#type: Some(secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(&secret.certificate)),
            private_key: Some(inline(&secret.private_key)),
            ..TlsCertificate::default()
        })),
    }))
}

fn check(secret: &TlsSecret) -> Result<(), Unusable> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&secret.certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| Unusable::Certificate)?;
    let leaf = chain.first().ok_or(Unusable::Certificate)?;
    x509_parser::parse_x509_certificate(leaf).map_err(|_| Unusable::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&secret.private_key)
        .ok()
        .and_then(|key| any_supported_type(&key).ok())
        .ok_or(Unusable::PrivateKey)?;
    match CertifiedKey::new(chain, key).keys_match() {
        // Where the key cannot say what its public half is, nothing can be said against it.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(_) => Err(Unusable::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    }

    #[test]
    fn broken_secrets_are_not_served() {
        let ((certificate, private_key), (_, other_key)) = (pair(), pair());
        for (certificate, private_key, want) in [
            (certificate.clone(), private_key.clone(), Ok(())),
            (b"nonsense".to_vec(), private_key.clone(), Err(Unusable::Certificate)),
            (certificate.clone(), b"nonsense".to_vec(), Err(Unusable::PrivateKey)),
            (certificate, other_key, Err(Unusable::Mismatch)),
        ] {
            let secret = TlsSecret { certificate, private_key, ca_certificate: None };
            assert_eq!(check(&secret), want);
        }
    }
}
