//! The edge: AdmissionReview in, AdmissionReview out, whatever comes in.
//!
//! Objects stay JSON here, so that fields that this version does not know reach the handlers.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    extract::{Request as HttpRequest, rejection::BytesRejection},
    response::{IntoResponse, Response},
};
use base64::{display::Base64Display, engine::general_purpose::STANDARD};
use futures::FutureExt;
use http::{StatusCode, header::CONTENT_TYPE};
use kube::core::{Status, admission::Operation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
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
    /// Whether nothing will be stored. Then nothing else may be written either.
    #[serde(default)]
    pub dry_run: bool,
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
        /// What is to be changed, as a JSON patch.
        patch: Option<Vec<u8>>,
        warnings: Vec<String>,
        /// For the API server's audit log.
        audit: BTreeMap<&'static str, String>,
    },
    Deny {
        message: String,
        warnings: Vec<String>,
        /// For the API server's audit log.
        audit: BTreeMap<&'static str, String>,
    },
    /// There is nothing wrong with the object, but it may not be done now.
    Forbid(String),
    /// We cannot tell; the webhook's failure policy decides.
    Fail(String),
}

impl Answer {
    pub fn allow() -> Self {
        Self::Allow { patch: None, warnings: Vec::new(), audit: BTreeMap::new() }
    }

    pub fn deny(message: impl Into<String>) -> Self {
        Self::Deny { message: message.into(), warnings: Vec::new(), audit: BTreeMap::new() }
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
    let outcome = AssertUnwindSafe(async { handler(request.clone()).await }).catch_unwind();
    let outcome = tracing::Instrument::instrument(tokio::time::timeout(TIMEOUT, outcome), span);
    match outcome.await {
        Ok(Ok(answer)) => respond(&uid, answer),
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
    struct Question {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        request: Option<Request>,
    }
    let review: Question = serde_json::from_slice(body)
        .map_err(|error| format!("this is not an AdmissionReview: {error}"))?;
    if review.kind != KIND || review.api_version != API_VERSION {
        return Err(format!(
            "expected {KIND} of {API_VERSION}, got {:?} of {:?}",
            review.kind, review.api_version
        ));
    }
    review.request.ok_or_else(|| "the AdmissionReview has no request".to_owned())
}

/// What goes out, but for the patch. kube's own type writes that as a list of numbers, several times its
/// size.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Reply<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    audit_annotations: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

impl<'a> Reply<'a> {
    fn allowed(uid: &'a str) -> Self {
        Self {
            uid,
            allowed: true,
            status: None,
            audit_annotations: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    fn denied(uid: &'a str, code: StatusCode, reason: &str, message: &str) -> Self {
        let status = Status::failure(&one_line(message), reason).with_code(code.as_u16());
        Self { allowed: false, status: Some(status), ..Self::allowed(uid) }
    }

    fn into_response(self, status: StatusCode, patch: Option<&[u8]>) -> Response {
        let (api_version, kind) = (API_VERSION, KIND);
        // Base64 is a third longer.
        let mut body = Vec::with_capacity(1024 + patch.map_or(0, <[u8]>::len) / 3 * 4);
        let review = Review { api_version, kind, response: self };
        if let Err(error) = serde_json::to_writer(&mut body, &review) {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
        if let Some(patch) = patch {
            add(&mut body, patch);
        }
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// Puts a patch into a written review, of which the response is the last field. Nothing in base64 needs
/// escaping, so it is written where it belongs, once.
fn add(body: &mut Vec<u8>, patch: &[u8]) {
    body.truncate(body.len() - "}}".len());
    body.extend_from_slice(br#","patchType":"JSONPatch","patch":""#);
    body.extend_from_slice(Base64Display::new(patch, &STANDARD).to_string().as_bytes());
    body.extend_from_slice(b"\"}}");
}

/// Parsers quote what they were given, which may hold anything. A reason is one line of a log.
fn one_line(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn respond(uid: &str, answer: Answer) -> Response {
    let (reply, patch) = match answer {
        Answer::Allow { patch, warnings, audit } => {
            (Reply { warnings, audit_annotations: audit, ..Reply::allowed(uid) }, patch)
        }
        Answer::Deny { message, warnings, audit } => {
            let code = StatusCode::UNPROCESSABLE_ENTITY;
            let denied = Reply::denied(uid, code, "Invalid", &message);
            (Reply { warnings, audit_annotations: audit, ..denied }, None)
        }
        Answer::Forbid(message) => {
            (Reply::denied(uid, StatusCode::FORBIDDEN, "Forbidden", &message), None)
        }
        Answer::Fail(message) => return refuse(StatusCode::SERVICE_UNAVAILABLE, uid, &message),
    };
    reply.into_response(StatusCode::OK, patch.as_deref())
}

/// An answer that says no, in the form of a review, with an HTTP status that makes the API server
/// apply the webhook's failure policy.
fn refuse(status: StatusCode, uid: &str, message: &str) -> Response {
    tracing::warn!(status = status.as_u16(), uid, message, "review not answered");
    Reply::denied(uid, status, "InvalidRequest", message).into_response(status, None)
}
