//! The certificate authority of the mesh.
//!
//! Issuing is pure: a request, an identity, a serial and a window of time in, a certificate out
//! ([`issue`]). Around it stand the keys ([`Authority`], kept in a Secret by [`load_or_create`]), the
//! gRPC service that proxies call ([`Service`], the protocol that Istio's proxies speak), the trust
//! bundle in every namespace ([`distribute`]) and the control plane's own TLS ([`tls`]).
//!
//! A certificate says who the caller proved to be, never who it asked to be: of a request only the
//! public key is used.

use std::time::Duration;

mod authority;
mod caller;
mod certificate;
mod distribute;
mod issue;
pub mod protocol;
mod secret;
mod service;
pub mod tls;
mod token;

pub use authority::{Authority, ServerCertificate};
pub use caller::{Authenticate, Refused, bearer};
pub use certificate::{Certificate, certificates_in_pem};
pub use distribute::{ROOT_CONFIG_MAP, ROOT_KEY, distribute};
pub use issue::{Serial, Validity, issue};
pub use secret::{MANAGER, SECRET, load_or_create};
pub use service::Service;
pub use token::{AUDIENCE, TokenReviews};

/// How long a workload's certificate is valid; nobody gets a longer one.
pub const CERTIFICATE_TTL: Duration = Duration::from_hours(24);

/// Clocks differ: a certificate is valid from a little before it was issued.
pub const CLOCK_SKEW: Duration = Duration::from_mins(2);

/// Why something about a certificate cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the certificate request is not a PEM block of the kind CERTIFICATE REQUEST")]
    RequestNotPem,
    #[error("the certificate request is not a PKCS #10 request")]
    RequestNotPkcs10,
    #[error("the certificate request is not signed by the key that it names")]
    RequestSignature,
    #[error("keys of the kind in the certificate request are not supported: use ECDSA P-256")]
    RequestKey(#[source] rcgen::Error),
    #[error("{0} is not a certificate in PEM")]
    NotACertificate(String),
    #[error("{0} is empty: it must hold at least one certificate in PEM")]
    NoCertificate(&'static str),
    #[error("ca-key.pem is not a private key in PEM that this CA can sign with")]
    Key(#[source] rcgen::Error),
    #[error("ca-key.pem is not the key of the certificate in ca-cert.pem")]
    KeyMismatch,
    #[error(
        "the certificate in ca-cert.pem may not issue certificates: it is not a CA certificate"
    )]
    NotAnIssuer,
    #[error("the certificates in ca-cert.pem do not lead to one in root-cert.pem")]
    NoPathToRoot,
    #[error(
        "the CA's certificate expired on {0}: replace it, or delete the Secret to get a new one"
    )]
    Expired(time::OffsetDateTime),
    #[error("the CA's certificate names its issuer in a form that this CA cannot repeat exactly")]
    SubjectForm,
    #[error("{0:?} cannot stand in a certificate")]
    Name(String, #[source] rcgen::Error),
    #[error("the certificate cannot be signed")]
    Sign(#[source] rcgen::Error),
    #[error("the operating system gives no random bytes")]
    Random,
    #[error("the TLS configuration cannot be made from the CA's certificates")]
    Tls(#[source] rustls::Error),
    #[error("the CA's root certificates cannot verify clients")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the Secret {0} has no key {1}")]
    SecretKey(String, &'static str),
    #[error("the Secret {0} cannot be read or created")]
    Secret(String, #[source] Box<kube::Error>),
}

/// A shorthand for this module's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;
