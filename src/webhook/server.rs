//! Serves the webhooks: `/inject` (revision `default`), `/inject/REVISION`, `/validate`, `/healthz`.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    response::Response,
    routing::{get, post},
};
use k8s_openapi::api::core::v1 as core;
use kube::{
    Api, Client, ResourceExt,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    inject::{self, Decision, InjectConfig, Namespace},
    review::{self, Answer, BODY_LIMIT, Request},
    validate,
};
use crate::{
    api::meshwright::{MeshInstallation, labels::DEFAULT_REVISION},
    webhook::metrics::Metrics,
};

/// What the webhooks read; kept up to date by whoever made it.
#[derive(Clone)]
pub struct Webhooks {
    pub installations: Arc<ArcSwap<Installations>>,
    pub namespaces: Namespaces,
    pub metrics: Metrics,
}

/// The installations that exist, and what they mean for injection.
#[derive(Default)]
pub struct Installations {
    pub objects: Vec<Arc<MeshInstallation>>,
    /// By revision.
    pub inject: BTreeMap<String, InjectConfig>,
}

/// Labels of namespaces: from a cache, and from the API server where the cache may be behind.
#[derive(Clone)]
pub struct Namespaces {
    pub cache: Store<PartialObjectMeta<core::Namespace>>,
    pub client: Client,
}

/// The webhooks as routes.
pub fn router(webhooks: Webhooks) -> Router {
    Router::new()
        .route("/inject", post(inject_default))
        .route("/inject/{revision}", post(inject_revision))
        .route("/validate", post(validate_any))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(review::not_found)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(webhooks)
}

async fn inject_default(
    State(webhooks): State<Webhooks>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    review::answer(body, |request| inject(webhooks, DEFAULT_REVISION.to_owned(), request)).await
}

async fn inject_revision(
    State(webhooks): State<Webhooks>,
    Path(revision): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    review::answer(body, |request| inject(webhooks, revision, request)).await
}

async fn validate_any(
    State(webhooks): State<Webhooks>,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let check = |request: Arc<Request>| async move {
        let installations = webhooks.installations.load();
        let answer = validate::answer(&request, installations.objects.iter().map(AsRef::as_ref));
        webhooks.metrics.validated(&request.kind.kind, matches!(answer, Answer::Allow { .. }));
        answer
    };
    review::answer(body, check).await
}

async fn inject(webhooks: Webhooks, revision: String, request: Arc<Request>) -> Answer {
    let kind = &request.kind;
    if (kind.group.as_str(), kind.kind.as_str()) != ("", "Pod") {
        let message = format!("only pods are injected, this is a {}", kind.kind);
        return Answer::Deny { message, warnings: Vec::new() };
    }
    let started = Instant::now();
    let installations = webhooks.installations.load_full();
    let Some(config) = installations.inject.get(&revision) else {
        return Answer::Fail(format!("there is no MeshInstallation with revision {revision}"));
    };
    let namespace = webhooks.namespaces.cached(&request.namespace);
    let mut outcome = inject::inject(&request.object, &namespace, config);
    // The API server has chosen us by the namespace's labels; if they seem to say otherwise, the
    // cache is behind.
    if let Ok(inject::Outcome { decision: Decision::Skip(reason), .. }) = &outcome
        && reason.is_about_namespace()
    {
        match webhooks.namespaces.fetch(&request.namespace).await {
            Ok(fresh) if fresh != namespace => {
                outcome = inject::inject(&request.object, &fresh, config);
            }
            Ok(_) => {}
            Err(error) => return Answer::Fail(format!("cannot read the namespace: {error}")),
        }
    }
    match outcome {
        Ok(outcome) => {
            webhooks.metrics.injected(&outcome.decision, started.elapsed());
            allow(outcome, &revision)
        }
        Err(error) => Answer::Deny { message: error.to_string(), warnings: Vec::new() },
    }
}

fn allow(outcome: inject::Outcome, revision: &str) -> Answer {
    let (changed, verdict, reason) = match &outcome.decision {
        Decision::Inject(reason) => (Some(outcome.pod), "injected", reason),
        Decision::Skip(reason) => (None, "skipped", reason),
    };
    let warnings = if changed.is_some() { outcome.warnings } else { Vec::new() };
    let audit = [
        ("injection", verdict.to_owned()),
        ("reason", reason.to_string()),
        ("revision", revision.to_owned()),
    ];
    Answer::Allow { changed, warnings, audit: audit.into() }
}

impl Namespaces {
    fn cached(&self, name: &str) -> Namespace {
        namespace(name, self.cache.get(&ObjectRef::new(name)).as_deref())
    }

    async fn fetch(&self, name: &str) -> Result<Namespace, kube::Error> {
        let namespaces: Api<core::Namespace> = Api::all(self.client.clone());
        Ok(namespace(name, namespaces.get_metadata_opt(name).await?.as_ref()))
    }
}

fn namespace(name: &str, found: Option<&PartialObjectMeta<core::Namespace>>) -> Namespace {
    let annotations = found.into_iter().flat_map(ResourceExt::annotations);
    let read = annotations.filter(|(key, _)| inject::PLATFORM_ANNOTATIONS.contains(&&***key));
    Namespace {
        name: name.to_owned(),
        labels: found.map(|found| found.labels().clone()).unwrap_or_default(),
        annotations: read.map(|(key, value)| (key.clone(), value.clone())).collect(),
    }
}
