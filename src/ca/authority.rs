//! The CA's own key and certificates.

use std::fmt;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::ca::{
    CLOCK_SKEW, Certificate, Error, Result, Serial,
    certificate::{certificates_in_pem, is_signed_by},
};

/// How long a root that we make ourselves is valid.
const ROOT_TTL: Duration = Duration::days(3650);

/// How long the control plane's own certificate is valid. It lives in memory only, and every start
/// makes a new one.
const SERVER_TTL: Duration = Duration::days(365);

/// A key that may issue certificates, with the way from its certificate up to the roots.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The issuing certificate first, then those above it.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    chain_pem: String,
    intermediates_pem: Vec<String>,
    root_pem: String,
    not_after: OffsetDateTime,
}

/// What the control plane's TLS server shows.
pub struct ServerCertificate {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub not_after: OffsetDateTime,
}

impl Authority {
    /// Makes a new root and its key.
    pub fn self_signed(now: OffsetDateTime, serial: Serial) -> Result<Self> {
        let key = KeyPair::generate().map_err(Error::Sign)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Meshwright");
        params.distinguished_name.push(DnType::CommonName, "Root of the mesh");
        params.serial_number = Some(serial.into());
        params.not_before = now - CLOCK_SKEW;
        params.not_after = now + ROOT_TTL;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(Error::Sign)?.pem();
        Self::from_pem(&certificate, &key.serialize_pem(), &certificate, now)
    }

    /// Takes an authority from the three files of the Secret. `ca_cert` holds the issuing
    /// certificate, then any above it; `root_cert` the roots that proxies are to trust.
    pub fn from_pem(
        ca_cert: &str,
        ca_key: &str,
        root_cert: &str,
        now: OffsetDateTime,
    ) -> Result<Self> {
        let chain = certificates_in_pem(ca_cert, "ca-cert.pem")?;
        let roots = certificates_in_pem(root_cert, "root-cert.pem")?;
        let key = KeyPair::from_pem(ca_key).map_err(Error::Key)?;
        let own = Certificate::from_der(&chain[0], "ca-cert.pem")?;
        if own.public_key != key.subject_public_key_info() {
            return Err(Error::KeyMismatch);
        }
        if !own.is_ca {
            return Err(Error::NotAnIssuer);
        }
        if own.not_after <= now {
            return Err(Error::Expired(own.not_after));
        }
        if !leads_to(&chain, &roots) {
            return Err(Error::NoPathToRoot);
        }
        let issuer = Issuer::from_ca_cert_der(&chain[0], key).map_err(Error::Key)?;
        let authority = Self {
            issuer,
            intermediates_pem: blocks(ca_cert, &chain, &roots),
            chain_pem: ca_cert.trim().to_owned() + "\n",
            root_pem: root_cert.trim().to_owned() + "\n",
            not_after: own.not_after,
            chain,
            roots,
        };
        authority.check_subject(&own, now)?;
        Ok(authority)
    }

    /// Whoever verifies a chain compares names byte for byte. rcgen writes the issuer's name anew,
    /// and a plugged-in certificate may use forms that it does not keep.
    fn check_subject(&self, own: &Certificate, now: OffsetDateTime) -> Result<()> {
        let probe = self.server_certificate(&["probe.invalid".to_owned()], now)?;
        let leaf = Certificate::from_der(&probe.chain[0], "probe")?;
        if leaf.issuer == own.subject { Ok(()) } else { Err(Error::SubjectForm) }
    }

    /// The certificates that proxies are to trust, in PEM.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The issuing certificate and those above it, in PEM.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The private key, in PEM: for the Secret, and for nobody else.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub fn not_after(&self) -> OffsetDateTime {
        self.not_after
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// What a workload presents above its leaf: the chain without roots, which the other side has.
    pub(super) fn intermediates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.chain.iter().filter(|certificate| !self.roots.contains(certificate))
    }

    /// The same, in PEM, for the protocol.
    pub(super) fn intermediates_pem(&self) -> &[String] {
        &self.intermediates_pem
    }

    /// A fresh certificate and key for the control plane's own server, for these DNS names (or IP
    /// addresses).
    pub fn server_certificate(
        &self,
        names: &[String],
        now: OffsetDateTime,
    ) -> Result<ServerCertificate> {
        let key = KeyPair::generate().map_err(Error::Sign)?;
        let mut params =
            CertificateParams::new(names).map_err(|error| Error::Name(names.join(", "), error))?;
        params.distinguished_name = DistinguishedName::new();
        params.serial_number = Some(Serial::random()?.into());
        params.not_before = now - CLOCK_SKEW;
        params.not_after = (now + SERVER_TTL).min(self.not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key, &self.issuer).map_err(Error::Sign)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend(self.intermediates().cloned());
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(ServerCertificate { chain, key, not_after: params.not_after })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The PEM blocks of those certificates of the chain that are no roots.
fn blocks(pem: &str, chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let texts =
        pem.split_inclusive(END).filter_map(|text| text.find("-----BEGIN ").map(|at| &text[at..]));
    let pairs = texts.zip(chain).filter(|(_, certificate)| !roots.contains(certificate));
    pairs.map(|(text, _)| format!("{text}\n")).collect()
}

/// Does each certificate follow from the next, and the last from a root?
fn leads_to(chain: &[CertificateDer<'_>], roots: &[CertificateDer<'_>]) -> bool {
    let linked = chain.windows(2).all(|pair| is_signed_by(&pair[0], &pair[1]));
    let Some(last) = chain.last() else { return false };
    linked && roots.iter().any(|root| root == last || is_signed_by(last, root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_772_366_400).unwrap()
    }

    fn root() -> Authority {
        Authority::self_signed(now(), Serial::from_bytes([7; 16])).unwrap()
    }

    /// An intermediate under `root`, as its PEM and its key's.
    fn intermediate(root: &Authority, is_ca: IsCa) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "intermediate");
        params.is_ca = is_ca;
        params.not_after = now() + Duration::days(30);
        let certificate = params.signed_by(&key, &root.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_root_of_its_own_lasts_ten_years_and_survives_its_secret() {
        let root = root();
        assert_eq!(root.not_after(), now() + ROOT_TTL);
        let again =
            Authority::from_pem(root.chain_pem(), &root.key_pem(), root.root_pem(), now()).unwrap();
        assert_eq!(again.root_pem(), root.root_pem());
        assert_eq!(again.intermediates().count(), 0, "a root is not sent along");
    }

    #[test]
    fn takes_a_plugged_in_intermediate() {
        let root = root();
        let (cert, key) = intermediate(&root, IsCa::Ca(BasicConstraints::Constrained(0)));
        let authority = Authority::from_pem(&cert, &key, root.root_pem(), now()).unwrap();
        assert_eq!(authority.intermediates().count(), 1);
        assert_eq!(authority.not_after(), now() + Duration::days(30));
        let server = authority.server_certificate(&["a.b.svc".to_owned()], now()).unwrap();
        assert_eq!(server.chain.len(), 2);
        assert_eq!(server.not_after, authority.not_after(), "no longer than its issuer");
    }

    #[test]
    fn says_what_is_wrong_with_plugged_in_files() {
        let root = root();
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (cert, key) = intermediate(&root, ca);
        let (_, other_key) = intermediate(&root, ca);
        let (leaf, leaf_key) = intermediate(&root, IsCa::NoCa);
        let stranger = self::root();
        let cases = [
            ("ca-cert.pem is not", "junk", &*key, root.root_pem()),
            ("root-cert.pem is empty", &cert, &key, ""),
            ("ca-key.pem is not a private key", &cert, "junk", root.root_pem()),
            ("not the key of the certificate", &cert, &other_key, root.root_pem()),
            ("not a CA certificate", &leaf, &leaf_key, root.root_pem()),
            ("do not lead to", &cert, &key, stranger.root_pem()),
        ];
        for (want, cert, key, root) in cases {
            let got = Authority::from_pem(cert, key, root, now()).unwrap_err().to_string();
            let empty =
                want.starts_with("ca-cert.pem is not") && got.contains("ca-cert.pem is empty");
            assert!(got.contains(want) || empty, "want {want:?}, got {got:?}");
        }
        let late = now() + Duration::days(31);
        let error = Authority::from_pem(&cert, &key, root.root_pem(), late).unwrap_err();
        assert!(matches!(error, Error::Expired(_)), "{error}");
    }
}
