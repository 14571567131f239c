//! Issuing one certificate. Pure: the clock and the serial are inputs.

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{
    ca::{Authority, CLOCK_SKEW, Error, Result},
    identity::SpiffeId,
};

/// A certificate's serial number: 16 random bytes, made positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial([u8; 16]);

impl Serial {
    /// RFC 5280 wants serial numbers positive and not zero.
    pub fn from_bytes(mut bytes: [u8; 16]) -> Self {
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Self(bytes)
    }

    /// A serial from the operating system's randomness.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
        Ok(Self::from_bytes(bytes))
    }
}

impl From<Serial> for SerialNumber {
    fn from(serial: Serial) -> Self {
        Self::from_slice(&serial.0)
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From now (a little before, as clocks differ) for `ttl`.
    pub fn starting(now: OffsetDateTime, ttl: std::time::Duration) -> Self {
        Self { not_before: now - CLOCK_SKEW, not_after: now + ttl }
    }
}

/// Issues a certificate for `identity` over the public key in `csr` (PEM), and returns it in PEM.
///
/// The request must be signed by its own key, which proves that the caller holds it. Whatever else
/// the request asks for is ignored. The certificate does not outlive its issuer.
pub fn issue(
    csr: &str,
    identity: &SpiffeId,
    serial: Serial,
    validity: Validity,
    authority: &Authority,
) -> Result<String> {
    let public_key = requested_key(csr)?;
    let uri = identity.to_string();
    let name = uri.clone().try_into().map_err(|error| Error::Name(uri, error))?;
    let mut params = CertificateParams::default();
    // SPIFFE: the identity is the name; an empty subject makes it the only one.
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(name)];
    params.serial_number = Some(serial.into());
    params.not_before = validity.not_before;
    params.not_after = validity.not_after.min(authority.not_after());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&public_key, authority.issuer()).map_err(Error::Sign)?;
    Ok(certificate.pem())
}

fn requested_key(csr: &str) -> Result<SubjectPublicKeyInfo> {
    let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes())
        .map_err(|_| Error::RequestNotPem)?;
    let (_, request) =
        X509CertificationRequest::from_der(&der).map_err(|_| Error::RequestNotPkcs10)?;
    request.verify_signature().map_err(|_| Error::RequestSignature)?;
    let key = request.certification_request_info.subject_pki.raw;
    SubjectPublicKeyInfo::from_der(key).map_err(Error::RequestKey)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::KeyPair;
    use rustls::pki_types::CertificateDer;
    use time::Duration;

    use super::*;
    use crate::ca::Certificate;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_772_366_400).unwrap()
    }

    fn authority() -> Authority {
        Authority::self_signed(now(), Serial::from_bytes([1; 16])).unwrap()
    }

    fn identity() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
    }

    fn day() -> Validity {
        Validity::starting(now(), std::time::Duration::from_hours(24))
    }

    fn issued(csr: &str, authority: &Authority, validity: Validity) -> Result<Certificate> {
        let pem = issue(csr, &identity(), Serial::from_bytes([2; 16]), validity, authority)?;
        Certificate::from_der(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap(), "leaf")
    }

    #[test]
    fn names_the_caller_and_not_what_the_request_asks_for() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://cluster.local/ns/a/sa/admin".try_into().unwrap()));
        let csr = params.serialize_request(&key).unwrap().pem().unwrap();

        let pem =
            issue(&csr, &identity(), Serial::from_bytes([2; 16]), day(), &authority()).unwrap();
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, x509) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = x509.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1, "{names:?}");
        assert!(names.critical, "an empty subject makes the name critical");
        let leaf = Certificate::from_der(&der, "leaf").unwrap();
        assert_eq!(leaf.identities, [identity()]);
        assert!(!leaf.is_ca);
        assert_eq!(leaf.not_after - leaf.not_before, Duration::hours(24) + CLOCK_SKEW);
    }

    #[test]
    fn does_not_outlive_its_issuer() {
        let authority = authority();
        let csr = request(&KeyPair::generate().unwrap());
        let late = Validity { not_before: now(), not_after: now() + Duration::days(40 * 365) };
        let leaf = issued(&csr, &authority, late).unwrap();
        assert_eq!(leaf.not_after, authority.not_after());
    }

    #[test]
    fn refuses_a_request_signed_by_another_key() {
        let csr = request(&KeyPair::generate().unwrap());
        let mut der =
            CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap().to_vec();
        // The last bytes are the signature; another valid number there is another signature.
        let last = der.len() - 1;
        der[last] ^= 1;
        let forged = to_pem(&der);
        let error = issued(&forged, &authority(), day()).unwrap_err();
        assert!(matches!(error, Error::RequestSignature), "{error}");
    }

    #[test]
    fn takes_p384_and_says_what_it_does_not_take() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        issued(&request(&p384), &authority(), day()).unwrap();
        for text in ["", "hello", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"] {
            let error = issued(text, &authority(), day()).unwrap_err();
            assert!(matches!(error, Error::RequestNotPem), "{text:?}: {error}");
        }
        let error = issued(&to_pem(b"\x30\x00"), &authority(), day()).unwrap_err();
        assert!(matches!(error, Error::RequestNotPkcs10), "{error}");
    }

    fn request(key: &KeyPair) -> String {
        CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    }

    /// Base64 by hand, as no crate of ours does it.
    fn to_pem(der: &[u8]) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
        for line in der.chunks(48) {
            for group in line.chunks(3) {
                let bits = (0..3).fold(0_usize, |bits, i| {
                    bits << 8 | usize::from(group.get(i).copied().unwrap_or(0))
                });
                for i in 0..4 {
                    let digit = char::from(ALPHABET[bits >> (18 - 6 * i) & 63]);
                    text.push(if i <= group.len() { digit } else { '=' });
                }
            }
            text.push('\n');
        }
        text + "-----END CERTIFICATE REQUEST-----\n"
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(requested_key(&to_pem(&bytes)).is_err());
            prop_assert!(requested_key(&String::from_utf8_lossy(&bytes)).is_err());
        }

        /// A valid request with a few bytes changed is the likelier way into the parser's depths.
        #[test]
        fn a_damaged_request_never_panics(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let csr = include_str!("testdata/request.pem");
            let mut der =
                CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).unwrap().to_vec();
            for (place, byte) in damage {
                let place = place.index(der.len());
                der[place] = byte;
            }
            // Any answer will do.
            drop(requested_key(&to_pem(&der)));
        }
    }
}
