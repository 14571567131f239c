//! The webhook's own certificate: a CA that it makes itself and a leaf under it. The API server
//! trusts the CA because its certificate stands in the webhook configurations.
//!
//! Issuing is here and takes the time as an input; [`keeper`] stores and renews it.

pub mod keeper;

use std::{collections::BTreeSet, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use time::OffsetDateTime;
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

const CA_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
const LEAF_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// Clocks of nodes differ a little.
const BACKDATED: Duration = Duration::from_mins(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    #[error("the stored certificate cannot be read: {0}")]
    Parse(String),
    #[error("the stored certificate and key cannot be served: {0}")]
    Tls(#[from] rustls::Error),
}

/// CA, leaf and key, all PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What clients are to trust: the CA that signed the leaf, then the one before it, if any.
    pub ca: String,
    pub ca_key: String,
    pub certificate: String,
    pub key: String,
}

/// What a stored leaf says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub names: BTreeSet<String>,
    pub not_before: i64,
    pub not_after: i64,
}

impl Bundle {
    /// A new CA and a leaf for these DNS names and addresses. The CA of `previous` stays trusted.
    pub fn issue(
        names: &BTreeSet<String>,
        now: OffsetDateTime,
        previous: Option<&Self>,
    ) -> Result<Self, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("meshwright-webhook-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = now - BACKDATED;
        params.not_after = now + CA_LIFETIME;
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        params.distinguished_name = named("meshwright-webhook");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = now - BACKDATED;
        params.not_after = now + LEAF_LIFETIME;
        let certificate = params.signed_by(&key, &ca)?;

        let before = previous.and_then(|bundle| first_certificate(&bundle.ca)).unwrap_or_default();
        Ok(Self {
            ca: ca.pem() + before,
            ca_key: ca.key().serialize_pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What the leaf is for and how long it lasts.
    pub fn leaf(&self) -> Result<Leaf, Error> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|error| Error::Parse(error.to_string()))?;
        let (_, leaf) =
            parse_x509_certificate(&der).map_err(|error| Error::Parse(error.to_string()))?;
        let names = leaf
            .subject_alternative_name()
            .map_err(|error| Error::Parse(error.to_string()))?
            .map(|extension| extension.value.general_names.iter().filter_map(name).collect())
            .unwrap_or_default();
        let validity = leaf.validity();
        Ok(Leaf {
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// The server's side of TLS with this leaf.
    pub fn server_config(&self) -> Result<ServerConfig, Error> {
        let unreadable = |error: rustls::pki_types::pem::Error| Error::Parse(error.to_string());
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(unreadable)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(unreadable)?;
        let mut config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Leaf {
    /// Whether a new one is due: two thirds of its life are over, or it lacks a name.
    pub fn is_due(&self, names: &BTreeSet<String>, now: OffsetDateTime) -> bool {
        let renew_at = self.not_before + (self.not_after - self.not_before) / 3 * 2;
        now.unix_timestamp() >= renew_at || !names.is_subset(&self.names)
    }
}

fn named(common_name: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(v4) => Some(std::net::Ipv4Addr::from(v4).to_string()),
            Err(_) => {
                <[u8; 16]>::try_from(*bytes).ok().map(|v6| std::net::Ipv6Addr::from(v6).to_string())
            }
        },
        _ => None,
    }
}

fn first_certificate(pem: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----\n";
    // rcgen ends lines with CRLF on some platforms; we only write what it gives us.
    let end = pem.find(END)? + END.len();
    pem.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn is_due_late_or_when_a_name_is_missing() {
        let now = OffsetDateTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let wanted = names(&["meshwright-operator.meshwright-system.svc", "127.0.0.1"]);
        let bundle = Bundle::issue(&wanted, now, None).unwrap();
        let leaf = bundle.leaf().unwrap();
        assert_eq!(leaf.names, wanted);
        assert!(!leaf.is_due(&wanted, now));
        assert!(!leaf.is_due(&wanted, now + Duration::from_hours(59 * 24)));
        assert!(leaf.is_due(&wanted, now + Duration::from_hours(61 * 24)));
        assert!(leaf.is_due(&names(&["other"]), now));
    }

    #[test]
    fn a_new_ca_keeps_the_one_before_it_trusted() {
        crate::runtime::install_crypto_provider();
        let now = OffsetDateTime::now_utc();
        let wanted = names(&["a"]);
        let first = Bundle::issue(&wanted, now, None).unwrap();
        let second = Bundle::issue(&wanted, now, Some(&first)).unwrap();
        let third = Bundle::issue(&wanted, now, Some(&second)).unwrap();
        assert!(second.ca.ends_with(&first.ca));
        assert_eq!(third.ca.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(third.server_config().is_ok());
    }
}
