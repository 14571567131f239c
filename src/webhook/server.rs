//! Serves the webhooks: `/inject` (revision `default`), `/inject/REVISION` (or one of its tags),
//! `/validate`, `/healthz`.

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
    core::{PartialObjectMeta, admission::Operation},
    runtime::reflector::{ObjectRef, Store},
};

use super::{
    events::{self, Events, Incident, Notice},
    inject::{self, Decision, InjectConfig, Namespace, Reason},
    review::{self, Answer, BODY_LIMIT, Request},
    validate::{self, deletion},
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
    pub events: Events,
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
        let answer = if request.operation == Operation::Delete {
            deletion::answer(&webhooks.namespaces.client, &request).await
        } else {
            let installations = webhooks.installations.load();
            validate::answer(&request, installations.objects.iter().map(AsRef::as_ref))
        };
        webhooks.metrics.validated(&request.kind.kind, matches!(answer, Answer::Allow { .. }));
        answer
    };
    review::answer(body, check).await
}

async fn inject(webhooks: Webhooks, revision: String, request: Arc<Request>) -> Answer {
    let kind = &request.kind;
    if (kind.group.as_str(), kind.kind.as_str()) != ("", "Pod") {
        return Answer::deny(format!("only pods are injected, this is a {:?}", kind.kind));
    }
    let started = Instant::now();
    let installations = webhooks.installations.load_full();
    let Some(config) = installations.named(&revision) else {
        return Answer::Fail(format!(
            "there is no MeshInstallation with revision or tag {revision}: make one, or delete the webhook configuration that asks for it"
        ));
    };
    let (outcome, config) =
        match resolved(&webhooks.namespaces, &request, config, &installations).await {
            Ok(outcome) => outcome,
            Err(error) => return Answer::Fail(format!("cannot read the namespace: {error}")),
        };
    webhooks.metrics.injected(outcome.as_ref().ok().map(|o| &o.decision), started.elapsed());
    if let Some(incident) = Incident::of(&outcome)
        && !request.dry_run
    {
        webhooks.events.post(Notice { about: events::regarding(&request), incident });
    }
    answer(outcome, &config.revision)
}

/// What becomes of the pod, by whom.
///
/// While a tag moves, two webhook configurations select it for a moment, and replicas may differ about
/// where it belongs. So whichever of them is asked injects for the revision that has the name which
/// the labels ask for; who is asked second finds the pod injected and leaves it alone.
async fn resolved<'a>(
    namespaces: &Namespaces,
    request: &Request,
    config: &'a InjectConfig,
    installations: &'a Installations,
) -> Result<(Result<inject::Verdict, inject::Error>, &'a InjectConfig), kube::Error> {
    let outcome = decided(namespaces, request, config).await?;
    if let Ok(inject::Verdict { decision: Decision::Skip(Reason::OtherRevision(asked)), .. }) =
        &outcome
        && let Some(holder) = installations.named(asked)
        && holder.revision != config.revision
    {
        return Ok((decided(namespaces, request, holder).await?, holder));
    }
    Ok((outcome, config))
}

/// What becomes of the pod, or why it cannot be injected.
async fn decided(
    namespaces: &Namespaces,
    request: &Request,
    config: &InjectConfig,
) -> Result<Result<inject::Verdict, inject::Error>, kube::Error> {
    let namespace = namespaces.cached(&request.namespace);
    let outcome = inject::judge(&request.object, &namespace, config);
    // The API server has chosen us by the namespace's labels; if they seem to say otherwise, the
    // cache is behind.
    if let Ok(inject::Verdict { decision: Decision::Skip(reason), .. }) = &outcome
        && reason.is_about_namespace()
    {
        let fresh = namespaces.fetch(&request.namespace).await?;
        if fresh != namespace {
            return Ok(inject::judge(&request.object, &fresh, config));
        }
    }
    Ok(outcome)
}

fn answer(outcome: Result<inject::Verdict, inject::Error>, revision: &str) -> Answer {
    let audit = |verdict: &str, reason: String| {
        let notes = [
            ("injection", verdict.to_owned()),
            ("reason", reason),
            ("revision", revision.to_owned()),
        ];
        notes.into()
    };
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            let message = error.to_string();
            let audit = audit("denied", message.clone());
            return Answer::Deny { message, warnings: Vec::new(), audit };
        }
    };
    let (patch, warnings, verdict) = match &outcome.decision {
        Decision::Inject(_) => (outcome.patch, outcome.warnings, "injected"),
        Decision::Skip(reason) if reason.was_asked() => {
            (None, vec![format!("the pod gets no proxy: {reason}")], "skipped")
        }
        Decision::Skip(_) => (None, Vec::new(), "skipped"),
    };
    let audit = audit(verdict, outcome.decision.reason().to_string());
    Answer::Allow { patch, warnings, audit }
}

impl Installations {
    /// What the revision that has this name injects by. Whoever holds it as a tag goes before the
    /// revision of that name, which then is on its way out.
    fn named(&self, name: &str) -> Option<&InjectConfig> {
        let has_tag = |config: &&InjectConfig| config.tags.iter().any(|tag| tag == name);
        self.inject.values().find(has_tag).or_else(|| self.inject.get(name))
    }
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
    found.map_or_else(
        || Namespace { name: name.to_owned(), ..Namespace::default() },
        |found| Namespace::new(name, found.labels().clone(), found.annotations()),
    )
}
