//! The gRPC service: who is it, then issue.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    ca::{
        Authenticate, Authority, CERTIFICATE_TTL, Error, Refused, Serial, Validity,
        caller::{bearer, certified},
        issue,
        protocol::{
            IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
            IstioCertificateServiceServer,
        },
    },
    identity::SpiffeId,
    runtime::tls::PeerCertificates,
};

/// Issues certificates to callers who prove who they are: a new pod by its token, a renewing one
/// by its token or by its certificate.
pub struct Service<A> {
    authority: Arc<Authority>,
    callers: A,
    trust_domain: String,
}

impl<A: Authenticate> Service<A> {
    pub fn new(authority: Arc<Authority>, callers: A, trust_domain: impl Into<String>) -> Self {
        Self { authority, callers, trust_domain: trust_domain.into() }
    }

    /// The tonic service, to be added to `tonic::service::Routes`.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self)
    }

    /// A token says who the caller is now, a certificate who it was when it got it: where there is
    /// a token, it decides.
    async fn caller<T: Sync>(
        &self,
        request: &Request<T>,
        now: OffsetDateTime,
    ) -> Result<SpiffeId, Refused> {
        let header = request.metadata().get("authorization");
        if let Some(token) = header.and_then(|header| header.to_str().ok()).and_then(bearer) {
            return self.callers.authenticate(token).await;
        }
        let peer = request.extensions().get::<PeerCertificates>().ok_or(Refused::NoCredential)?;
        certified(&peer.0, &self.trust_domain, now)
    }

    fn chain(&self, leaf: String) -> Vec<String> {
        let mut chain = vec![leaf];
        chain.extend_from_slice(self.authority.intermediates_pem());
        chain.push(self.authority.root_pem().to_owned());
        chain
    }
}

#[tonic::async_trait]
impl<A: Authenticate> IstioCertificateService for Service<A> {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let now = OffsetDateTime::now_utc();
        let identity = self.caller(&request, now).await.map_err(|refused| refusal(&refused))?;
        let request = request.into_inner();
        let validity = Validity::starting(now, ttl(request.validity_duration));
        let serial = Serial::random().map_err(|error| failure(&error))?;
        let leaf = issue(&request.csr, &identity, serial, validity, &self.authority)
            .map_err(|error| failure(&error))?;
        tracing::debug!(%identity, not_after = %validity.not_after, "issued a certificate");
        Ok(Response::new(IstioCertificateResponse { cert_chain: self.chain(leaf) }))
    }
}

/// What was asked for, within what is given.
fn ttl(asked_seconds: i64) -> Duration {
    match u64::try_from(asked_seconds) {
        Ok(0) | Err(_) => CERTIFICATE_TTL,
        Ok(seconds) => Duration::from_secs(seconds).min(CERTIFICATE_TTL),
    }
}

fn refusal(refused: &Refused) -> Status {
    tracing::warn!(error = %refused, "refused a certificate request");
    match refused {
        Refused::Unavailable(_) => Status::unavailable(refused.to_string()),
        Refused::NotAServiceAccount(_) => Status::permission_denied(refused.to_string()),
        _ => Status::unauthenticated(refused.to_string()),
    }
}

fn failure(error: &Error) -> Status {
    tracing::warn!(%error, "cannot issue a certificate");
    match error {
        Error::RequestNotPem
        | Error::RequestNotPkcs10
        | Error::RequestSignature
        | Error::RequestKey(_) => Status::invalid_argument(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
