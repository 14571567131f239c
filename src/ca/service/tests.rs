//! The service over its own protocol, with a reviewer that needs no cluster.

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tonic::Code;

use super::*;
use crate::ca::{Certificate, protocol::IstioCertificateServiceClient};

struct Tokens;

#[tonic::async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, token: &str) -> Result<SpiffeId, Refused> {
        match token {
            "cart" => Ok("spiffe://td/ns/shop/sa/cart".parse().unwrap()),
            _ => Err(Refused::Token("unknown".to_owned())),
        }
    }
}

fn service() -> Service<Tokens> {
    let now = OffsetDateTime::now_utc();
    let authority = Authority::self_signed(now, Serial::random().unwrap()).unwrap();
    Service::new(Arc::new(authority), Tokens, "td")
}

fn request(validity_duration: i64) -> IstioCertificateRequest {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    IstioCertificateRequest { csr, validity_duration, metadata: None }
}

fn with_token(token: &str) -> Request<IstioCertificateRequest> {
    let mut request = Request::new(request(3600));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn leaf(response: &IstioCertificateResponse) -> (CertificateDer<'static>, Certificate) {
    let der = CertificateDer::from_pem_slice(response.cert_chain[0].as_bytes()).unwrap();
    let certificate = Certificate::from_der(&der, "leaf").unwrap();
    (der, certificate)
}

#[tokio::test]
async fn answers_its_own_client_with_leaf_and_root() {
    let service = service();
    let root = service.authority.root_pem().to_owned();
    let mut client = IstioCertificateServiceClient::new(service.into_server());
    let response = client.create_certificate(with_token("cart")).await.unwrap().into_inner();
    let (_, leaf) = leaf(&response);
    assert_eq!(leaf.identity().unwrap().to_string(), "spiffe://td/ns/shop/sa/cart");
    assert_eq!(response.cert_chain.last(), Some(&root));
    assert_eq!(response.cert_chain.len(), 2);
}

#[tokio::test]
async fn refuses_callers_without_proof_and_bad_requests() {
    let service = service();
    let bad = service.create_certificate(with_token("other")).await.unwrap_err();
    assert_eq!(bad.code(), Code::Unauthenticated);
    assert!(bad.message().contains("unknown"), "{bad}");
    let none = service.create_certificate(Request::new(request(0))).await.unwrap_err();
    assert_eq!(none.code(), Code::Unauthenticated);
    let mut junk = with_token("cart");
    "junk".clone_into(&mut junk.get_mut().csr);
    let junk = service.create_certificate(junk).await.unwrap_err();
    assert_eq!(junk.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_certificate_renews_itself_in_its_own_trust_domain() {
    let service = service();
    let first = service.create_certificate(with_token("cart")).await.unwrap().into_inner();
    let (der, _) = leaf(&first);
    let mut renewal = Request::new(request(0));
    renewal.extensions_mut().insert(PeerCertificates(Arc::new([der.clone()])));
    let second = service.create_certificate(renewal).await.unwrap().into_inner();
    assert_eq!(leaf(&second).1.identity(), leaf(&first).1.identity());

    let now = OffsetDateTime::now_utc();
    let error = certified(std::slice::from_ref(&der), "other", now).unwrap_err();
    assert!(error.to_string().contains("another trust domain"));
    let error = certified(&[der], "td", now + time::Duration::hours(2)).unwrap_err();
    assert!(error.to_string().contains("expired"));
}

#[tokio::test]
async fn a_bad_token_is_not_saved_by_a_certificate() {
    let service = service();
    let first = service.create_certificate(with_token("cart")).await.unwrap().into_inner();
    let mut renewal = with_token("other");
    renewal.extensions_mut().insert(PeerCertificates(Arc::new([leaf(&first).0])));
    let refused = service.create_certificate(renewal).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[test]
fn nobody_gets_more_than_a_day() {
    assert_eq!(ttl(0), CERTIFICATE_TTL);
    assert_eq!(ttl(-5), CERTIFICATE_TTL);
    assert_eq!(ttl(60), Duration::from_mins(1));
    assert_eq!(ttl(i64::MAX), CERTIFICATE_TTL);
}
