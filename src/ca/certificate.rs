//! What is read out of certificates: of our own, of plugged-in ones, and of callers.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::{
    ca::{Error, Result},
    identity::SpiffeId,
};

/// The few facts about one certificate that anybody here asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The URI names in it that are workload identities.
    pub identities: Vec<SpiffeId>,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// The public key, as DER (SubjectPublicKeyInfo).
    pub public_key: Vec<u8>,
    /// May it issue certificates?
    pub is_ca: bool,
    /// The names of subject and issuer, as DER.
    pub subject: Vec<u8>,
    pub issuer: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate; `what` names it in the error.
    pub fn from_der(der: &[u8], what: &str) -> Result<Self> {
        let x509 = parse(der, what)?;
        let mut identities = Vec::new();
        if let Ok(Some(names)) = x509.subject_alternative_name() {
            for name in &names.value.general_names {
                if let GeneralName::URI(uri) = name {
                    identities.extend(uri.parse::<SpiffeId>());
                }
            }
        }
        Ok(Self {
            identities,
            not_before: x509.validity().not_before.to_datetime(),
            not_after: x509.validity().not_after.to_datetime(),
            public_key: x509.public_key().raw.to_vec(),
            is_ca: x509.is_ca(),
            subject: x509.subject().as_raw().to_vec(),
            issuer: x509.issuer().as_raw().to_vec(),
        })
    }

    /// The one workload identity, unless there is none or more than one.
    pub fn identity(&self) -> Option<&SpiffeId> {
        match &self.identities[..] {
            [one] => Some(one),
            _ => None,
        }
    }
}

/// The certificates in a PEM file, in its order; `what` names the file in the error.
pub fn certificates_in_pem(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|_| Error::NotACertificate(what.to_owned()))?;
    if found.is_empty() { Err(Error::NoCertificate(what)) } else { Ok(found) }
}

/// Is `child` signed by the key of `parent`?
pub(super) fn is_signed_by(child: &[u8], parent: &[u8]) -> bool {
    match (parse(child, "child"), parse(parent, "parent")) {
        (Ok(child), Ok(parent)) => {
            child.issuer() == parent.subject()
                && child.verify_signature(Some(parent.public_key())).is_ok()
        }
        _ => false,
    }
}

fn parse<'a>(der: &'a [u8], what: &str) -> Result<X509Certificate<'a>> {
    match X509Certificate::from_der(der) {
        Ok((_, certificate)) => Ok(certificate),
        Err(_) => Err(Error::NotACertificate(what.to_owned())),
    }
}
