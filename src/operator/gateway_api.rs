//! Runs the gateways that Gateway API objects of class `meshwright` ask for.

mod build;
mod status;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Service, ServiceAccount},
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::{
        Controller,
        controller::{self, Action},
        events::{Event, EventType},
        watcher,
    },
};
use serde_json::json;

use super::{
    apply,
    context::{Context, changes},
    installation::validate::proxy_settings,
    objects::{Applied, Objects},
};
use crate::{
    api::{
        gateway::{CONTROLLER_NAME, GROUP, Gateway, GatewayClass},
        meshwright::labels::{DEFAULT_REVISION, ISTIO_REVISION, MANAGED_BY, MANAGER, REVISION},
    },
    webhook::inject::NativeSupport,
};

/// Name of the GatewayClass that we serve.
pub const CLASS: &str = "meshwright";
/// How often to look whether the Gateway API has been installed.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the Gateway cannot be read: {0}")]
    Unreadable(#[from] Box<InvalidObject>),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("cannot write the status: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// Runs the controller until `stop` resolves; waits for the Gateway API to be installed first.
pub async fn run(context: Arc<Context>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let stop = futures::FutureExt::shared(stop);
    tokio::select! {
        () = wait_until_installed(&context.client) => {}
        () = stop.clone() => return,
    }
    loop {
        match apply_class(&context.client).await {
            Ok(()) => break,
            Err(error) => tracing::warn!(%error, "GatewayClass {CLASS} not applied"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = stop.clone() => return,
        }
    }
    let client = &context.client;
    let ours = || watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let gateways = Api::<DeserializeGuard<Gateway>>::all(client.clone());
    let installations = changes(context.changed.clone());
    Controller::new(gateways, watcher::Config::default())
        .with_config(controller::Config::default().debounce(Duration::from_millis(100)))
        .owns(Api::<Deployment>::all(client.clone()), ours())
        .owns(Api::<Service>::all(client.clone()), ours())
        .owns(Api::<ServiceAccount>::all(client.clone()), ours())
        .reconcile_all_on(installations)
        .graceful_shutdown_on(stop)
        .run(reconcile, error_policy, context.clone())
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "gateway not reconciled");
            }
        })
        .await;
}

async fn reconcile(
    object: Arc<DeserializeGuard<Gateway>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let gateway = object.0.as_ref().map_err(|error| Error::from(Box::new(error.clone())))?;
    if gateway.spec.gateway_class_name != CLASS || gateway.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let revision = revision(gateway);
    let installations = context.installations.load_full();
    let installation = installations.objects.iter().find(|i| i.spec.revision == revision);
    let Some(installation) = installation else {
        status::write(&context, gateway, status::no_installation(&revision)).await?;
        return Ok(Action::await_change());
    };
    let proxy = proxy_settings(installation, &context.platform, &NativeSupport::default());
    let workload = build::workload(gateway, proxy);
    let mut objects = Objects::default();
    workload.build(&mut objects);
    let (applied, changes): (Objects<Applied>, _) = objects.apply(&context.client).await?;
    if let Some(summary) = changes.summary() {
        let event = Event {
            type_: EventType::Normal,
            reason: "Applied".to_owned(),
            note: Some(format!("Applied {summary}")),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        context.publish(gateway, event).await;
    }
    status::write(&context, gateway, status::report(&applied)).await?;
    context.backoff.reset(&key(gateway));
    Ok(Action::await_change())
}

#[expect(clippy::needless_pass_by_value, reason = "the Controller's signature")]
fn error_policy(
    object: Arc<DeserializeGuard<Gateway>>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    tracing::warn!(gateway = object.name_any(), %error, "not reconciled");
    match error {
        Error::Unreadable(_) => Action::await_change(),
        Error::Apply(_) | Error::Status(_) => Action::requeue(context.backoff.next(&key(&*object))),
    }
}

fn key<K: kube::Resource>(object: &K) -> String {
    format!("Gateway {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// The revision that a Gateway asks for.
fn revision(gateway: &Gateway) -> String {
    let labels = gateway.labels();
    let asked = labels.get(REVISION).or_else(|| labels.get(ISTIO_REVISION));
    asked.map_or_else(|| DEFAULT_REVISION.to_owned(), Clone::clone)
}

async fn wait_until_installed(client: &Client) {
    loop {
        let version = format!("{GROUP}/v1");
        let found = client.list_api_group_resources(&version).await;
        if found.is_ok_and(|list| list.resources.iter().any(|r| r.kind == "GatewayClass")) {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Makes our GatewayClass. The control plane says in its status that it serves it.
async fn apply_class(client: &Client) -> Result<(), kube::Error> {
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": CLASS, "labels": {MANAGED_BY: MANAGER}},
        "spec": {"controllerName": CONTROLLER_NAME, "description": "Gateways run by Meshwright"},
    });
    let params = PatchParams::apply(MANAGER).force();
    let classes = Api::<GatewayClass>::all(client.clone());
    classes.patch(CLASS, &params, &Patch::Apply(class)).await.map(drop)
}
