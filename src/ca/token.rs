//! Tokens reviewed by the API server.

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::{Api, Client, api::PostParams};

use crate::{
    ca::caller::{Authenticate, Refused, service_account},
    identity::SpiffeId,
};

/// The audience of the tokens that pods get for us: a token for anybody else proves nothing here.
pub const AUDIENCE: &str = "meshwright-ca";

/// Authenticates by asking the API server about each token.
pub struct TokenReviews {
    api: Api<TokenReview>,
    trust_domain: String,
}

impl TokenReviews {
    pub fn new(client: Client, trust_domain: impl Into<String>) -> Self {
        Self { api: Api::all(client), trust_domain: trust_domain.into() }
    }
}

#[tonic::async_trait]
impl Authenticate for TokenReviews {
    async fn authenticate(&self, token: &str) -> Result<SpiffeId, Refused> {
        let spec = TokenReviewSpec {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            token: Some(token.to_owned()),
        };
        let review = TokenReview { spec, ..TokenReview::default() };
        let review = self.api.create(&PostParams::default(), &review).await;
        let review = review.map_err(|error| Refused::Unavailable(Box::new(error)))?;
        service_account(&owner(review.status.unwrap_or_default())?, &self.trust_domain)
    }
}

/// The user whom the API server found behind the token.
fn owner(status: TokenReviewStatus) -> Result<String, Refused> {
    if let Some(error) = status.error.filter(|error| !error.is_empty()) {
        return Err(Refused::Token(error));
    }
    if status.authenticated != Some(true) {
        return Err(Refused::Token("the API server does not know it".to_owned()));
    }
    // A server that does not know audiences answers without them, and vouches for its own only.
    if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
        return Err(Refused::Token(format!("it is not for the audience {AUDIENCE}")));
    }
    Ok(status.user.and_then(|user| user.username).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::authentication::v1::UserInfo;

    use super::*;

    fn good() -> TokenReviewStatus {
        TokenReviewStatus {
            audiences: Some(vec![AUDIENCE.to_owned()]),
            authenticated: Some(true),
            error: None,
            user: Some(UserInfo {
                username: Some("system:serviceaccount:shop:cart".to_owned()),
                ..UserInfo::default()
            }),
        }
    }

    #[test]
    fn believes_only_a_good_review_for_our_audience() {
        assert_eq!(owner(good()).unwrap(), "system:serviceaccount:shop:cart");
        let bad = [
            TokenReviewStatus { authenticated: Some(false), ..good() },
            TokenReviewStatus { authenticated: None, ..good() },
            TokenReviewStatus { audiences: None, ..good() },
            TokenReviewStatus { audiences: Some(vec!["api".to_owned()]), ..good() },
            TokenReviewStatus { error: Some("expired".to_owned()), ..good() },
        ];
        for status in bad {
            assert!(owner(status.clone()).is_err(), "{status:?}");
        }
    }
}
