//! The edge: AdmissionReview in, AdmissionReview out, whatever comes in.
//!
//! Objects stay JSON here, so that fields that this version does not know reach the handlers.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{Request as HttpRequest, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::StatusCode;
use kube::core::admission::{AdmissionResponse, Operation};
use serde::Deserialize;
use serde_json::Value;

/// The largest review that is read. An object of the API server is at most 1.5 MB, and an update
/// carries two.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// Less than the 10 s after which the API server stops waiting.
const TIMEOUT: Duration = Duration::from_secs(8);

/// What the API server asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub uid: String,
    pub kind: Kind,
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub namespace: String,
    pub operation: Operation,
    #[serde(default)]
    pub object: Value,
    #[serde(default)]
    pub old_object: Value,
}

/// Group, version and kind of the object.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// What a handler answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Allow {
        /// The object as it should be, where it should be different.
        changed: Option<Value>,
        warnings: Vec<String>,
        /// For the API server's audit log.
        audit: BTreeMap<&'static str, String>,
    },
    Deny {
        message: String,
        warnings: Vec<String>,
    },
    /// We cannot tell; the webhook's failure policy decides.
    Fail(String),
}

impl Answer {
    pub fn allow() -> Self {
        Self::Allow { changed: None, warnings: Vec::new(), audit: BTreeMap::new() }
    }
}

/// Reads a review, has it answered, writes the answer. A panic of the handler is a failure of this
/// one review.
pub async fn answer<F>(
    body: Result<Bytes, BytesRejection>,
    handler: impl FnOnce(Arc<Request>) -> F,
) -> Response
where
    F: Future<Output = Answer>,
{
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return refuse(rejection.status(), "", &rejection.body_text()),
    };
    let request = match parse(&body) {
        Ok(request) => request,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, "", &message),
    };
    let uid = request.uid.clone();
    let span = tracing::debug_span!(
        "review",
        uid,
        kind = request.kind.kind,
        namespace = request.namespace,
        name = request.name
    );
    let request = Arc::new(request);
    // Called inside, so that a panic before the first await is caught too.
    let handled = AssertUnwindSafe(async { handler(request.clone()).await }).catch_unwind();
    let handled = tracing::Instrument::instrument(tokio::time::timeout(TIMEOUT, handled), span);
    match handled.await {
        Ok(Ok(answer)) => respond(&uid, &request.object, answer),
        Ok(Err(_)) => {
            tracing::error!(uid, "a review panicked");
            refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                &uid,
                "internal error; see the operator's log",
            )
        }
        Err(_) => {
            refuse(StatusCode::GATEWAY_TIMEOUT, &uid, "the API server did not answer in time")
        }
    }
}

/// Answers for paths that do not exist.
pub async fn not_found(request: HttpRequest) -> Response {
    let message = format!("there is no webhook at {}", request.uri().path());
    refuse(StatusCode::NOT_FOUND, "", &message)
}

fn parse(body: &[u8]) -> Result<Request, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Review {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        request: Option<Request>,
    }
    let review: Review = serde_json::from_slice(body)
        .map_err(|error| format!("this is not an AdmissionReview: {error}"))?;
    if review.kind != "AdmissionReview" || review.api_version != "admission.k8s.io/v1" {
        return Err(format!(
            "expected AdmissionReview of admission.k8s.io/v1, got {:?} of {:?}",
            review.kind, review.api_version
        ));
    }
    review.request.ok_or_else(|| "the AdmissionReview has no request".to_owned())
}

fn respond(uid: &str, before: &Value, answer: Answer) -> Response {
    // The only public constructor that needs no typed request.
    let mut response = AdmissionResponse::invalid("");
    uid.clone_into(&mut response.uid);
    match answer {
        Answer::Allow { changed, warnings, audit } => {
            response.allowed = true;
            response.result = kube::core::Status::default();
            response.warnings = (!warnings.is_empty()).then_some(warnings);
            response.audit_annotations =
                audit.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
            let patch = changed.map(|after| json_patch::diff(before, &after));
            if let Some(patch) = patch.filter(|patch| !patch.0.is_empty()) {
                response = match response.with_patch(patch) {
                    Ok(response) => response,
                    Err(error) => {
                        return refuse(StatusCode::INTERNAL_SERVER_ERROR, uid, &error.to_string());
                    }
                };
            }
        }
        Answer::Deny { message, warnings } => {
            response.result = kube::core::Status::failure(&message, "Invalid").with_code(422);
            response.warnings = (!warnings.is_empty()).then_some(warnings);
        }
        Answer::Fail(message) => {
            return refuse(StatusCode::SERVICE_UNAVAILABLE, uid, &message);
        }
    }
    Json(response.into_review()).into_response()
}

/// An answer that says no, in the form of a review, with an HTTP status that makes the API server
/// apply the webhook's failure policy.
fn refuse(status: StatusCode, uid: &str, message: &str) -> Response {
    tracing::warn!(status = status.as_u16(), uid, message, "review not answered");
    let mut response = AdmissionResponse::invalid(message);
    uid.clone_into(&mut response.uid);
    response.result.code = status.as_u16();
    (status, Json(response.into_review())).into_response()
}
