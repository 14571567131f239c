//! One call to the CA, on a connection of its own: they are half a day apart.

use std::time::Duration;

use tonic::Request;

use crate::{
    agent::{
        Settings,
        connect::{address, connect},
        identity::Error,
    },
    ca::protocol::{IstioCertificateRequest, IstioCertificateServiceClient},
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for a certificate; the answer is the chain in PEM, the leaf first and the root last.
pub(super) async fn create_certificate(
    settings: &Settings,
    roots: &str,
    token: &str,
    csr: String,
) -> Result<Vec<String>, Error> {
    let refused = |message: String| Error::Refused { address: address(settings), message };
    let channel = connect(settings, roots, None).await.map_err(Error::Connect)?;
    let validity = i64::try_from(settings.certificate_ttl.as_secs()).unwrap_or(i64::MAX);
    let mut request =
        Request::new(IstioCertificateRequest { csr, validity_duration: validity, metadata: None });
    request.set_timeout(ANSWER_TIMEOUT);
    let bearer = format!("Bearer {token}");
    let bearer = bearer.parse().map_err(|_| refused("the token is not text".to_owned()))?;
    request.metadata_mut().insert("authorization", bearer);
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
    answer
        .map(|response| response.into_inner().cert_chain)
        .map_err(|status| refused(status.message().to_owned()))
}
