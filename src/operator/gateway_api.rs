//! Runs the gateways that Gateway API objects of our classes ask for.
//!
//! The controller is put together from kube's parts rather than by its `Controller`: so the watches
//! also keep [`children`] up to date, from which a reconciliation learns without a call what there is.

mod apply;
mod build;
mod children;
mod classes;
mod parameters;
mod status;
mod watches;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    core::error_boundary::InvalidObject,
    runtime::{
        applier,
        controller::{self, Action, ReconcileRequest},
        events::{Event, EventType},
        reflector,
    },
};
use serde_json::json;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use self::{
    apply::Writer,
    build::Deployed,
    children::{Child, Children},
    classes::{Class, Classes},
    parameters::{Cache, Parameters, Problem},
    watches::Object,
};
use super::{apply::Changes, context::Context, installation::validate::proxy_settings};
use crate::{
    api::{
        gateway::{CONTROLLER_NAME, GROUP, Gateway, GatewayClass, class::ParametersReference},
        meshwright::{
            MeshInstallation, PatchedKind,
            labels::{DEFAULT_REVISION, ISTIO_REVISION, MANAGED_BY, MANAGER, REVISION},
        },
    },
    webhook::inject::NativeSupport,
};

/// Name of the GatewayClass that we make.
pub const CLASS: &str = "meshwright";
/// How often to look whether the Gateway API has been installed.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// For the first lists of what there is, without which more is read than necessary.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often to look at a Service that is not ours.
const SERVICE_INTERVAL: Duration = Duration::from_secs(15);
/// How many Gateways are reconciled at a time: enough to keep an API server busy, few enough to hold
/// their objects in little memory.
const CONCURRENCY: u16 = 16;
/// Kinds that are made for a Gateway.
const KINDS: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the Gateway cannot be read: {0}")]
    Unreadable(#[from] Box<InvalidObject>),
    #[error("cannot read parameters: {0}")]
    Parameters(#[source] Box<kube::Error>),
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("cannot write the status: {0}")]
    Status(#[source] Box<kube::Error>),
}

/// What the controller knows beside the Gateways themselves.
pub struct Gateways {
    context: Arc<Context>,
    children: Children,
    classes: Classes,
    parameters: Cache,
    /// The kinds of children that have been listed.
    listed: watch::Sender<BTreeSet<&'static str>>,
    classes_known: watch::Sender<bool>,
    /// Our class was deleted.
    class_gone: Notify,
}

impl Gateways {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            children: Children::default(),
            classes: Classes::default(),
            parameters: Cache::default(),
            listed: watch::channel(BTreeSet::new()).0,
            classes_known: watch::channel(false).0,
            class_gone: Notify::new(),
        })
    }

    /// A GatewayClass as the API server has it.
    pub fn class_seen(&self, class: &GatewayClass) {
        self.classes.set(class);
    }

    /// Something that was made for a Gateway changed, or is there.
    pub fn child_seen(&self, child: &impl Child) {
        self.children.observe(child);
    }

    /// Something that was made for a Gateway is gone.
    pub fn child_gone(&self, child: &impl Child) {
        self.children.forget(child);
    }

    /// A ConfigMap changed.
    pub fn parameters_changed(&self, namespace: &str, name: &str) {
        self.parameters.changed(&(namespace.to_owned(), name.to_owned()));
    }

    fn listed(&self, kind: PatchedKind) {
        self.listed.send_if_modified(|kinds| kinds.insert(kind.as_str()));
    }
}

/// Runs the controller until `stop` resolves; waits for the Gateway API to be installed first.
pub async fn run(context: Arc<Context>, stop: impl Future<Output = ()> + Send + Sync + 'static) {
    let stop = stop.shared();
    tokio::select! {
        () = wait_until_installed(&context.client) => {}
        () = stop.clone() => return,
    }
    let gateways = Gateways::new(context);
    let (store, writer) = reflector::store();
    let (sender, requests) = mpsc::unbounded_channel();
    // The watches go on while Gateways are reconciled. They end with this function.
    let mut tasks = JoinSet::new();
    let mut stream = watches::requests(&gateways, &store, writer);
    tasks.spawn(async move {
        while let Some(request) = stream.next().await {
            if sender.send(ReconcileRequest::from(request)).is_err() {
                return;
            }
        }
    });
    tasks.spawn(keep_class(gateways.clone()));
    tokio::select! {
        () = ready(&gateways) => {}
        () = stop.clone() => return,
    }
    let queue = tokio_stream::wrappers::UnboundedReceiverStream::new(requests)
        .take_until(stop)
        .map(Ok::<_, std::convert::Infallible>);
    let config =
        controller::Config::default().debounce(Duration::from_millis(100)).concurrency(CONCURRENCY);
    let reconcile = |object, gateways| reconcile(object, gateways).boxed();
    applier(reconcile, error_policy, gateways, store, queue, config)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "gateway not reconciled");
            }
        })
        .await;
}

/// Waits until the watches have told what there is.
async fn ready(gateways: &Gateways) {
    let mut classes = gateways.classes_known.subscribe();
    // Nothing is known about any Gateway before: the sender is ours and does not go.
    drop(classes.wait_for(|known| *known).await);
    let mut listed = gateways.listed.subscribe();
    let all = listed.wait_for(|kinds| kinds.len() == KINDS);
    if tokio::time::timeout(LIST_TIMEOUT, all).await.is_err() {
        tracing::warn!("not all that Gateways have could be listed: it is read one by one");
    }
}

/// Brings the cluster to what a Gateway says.
pub async fn reconcile(object: Arc<Object>, gateways: Arc<Gateways>) -> Result<Action, Error> {
    let gateway = object.0.as_ref().map_err(|error| Error::from(Box::new(error.clone())))?;
    // What was made for it goes with it: the garbage collector sees to that.
    if gateway.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let class = &gateway.spec.gateway_class_name;
    let action = match gateways.classes.get(class) {
        Some(Class::Ours(parameters)) => gateways.converge(gateway, parameters.as_ref()).await?,
        // Its class was deleted: it goes on until somebody says what is to become of it.
        None if gateways.is_of_class(gateway, class) => Action::await_change(),
        None | Some(Class::Foreign) => gateways.release(gateway).await?,
    };
    gateways.context.backoff.reset(&key(gateway));
    Ok(action)
}

#[expect(clippy::needless_pass_by_value, reason = "the applier's signature")]
fn error_policy(object: Arc<Object>, error: &Error, gateways: Arc<Gateways>) -> Action {
    tracing::warn!(gateway = key(&*object), %error, "not reconciled");
    match error {
        Error::Unreadable(_) => Action::await_change(),
        _ => Action::requeue(gateways.context.backoff.next(&key(&*object))),
    }
}

fn key<K: kube::Resource>(object: &K) -> String {
    format!("Gateway {}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

impl Gateways {
    async fn converge(
        &self,
        gateway: &Gateway,
        class: Option<&ParametersReference>,
    ) -> Result<Action, Error> {
        let revision = revision(gateway);
        let Some(installation) = self.installation(&revision) else {
            self.say(gateway, status::no_installation(&revision)).await?;
            return Ok(Action::await_change());
        };
        match build::deployed(gateway) {
            Deployed::Automatically => {}
            Deployed::Behind(service) => return self.stand_behind(gateway, &service).await,
            Deployed::Refused(message) => {
                self.say(gateway, status::invalid(gateway, "UnsupportedAddress", message)).await?;
                return Ok(Action::await_change());
            }
        }
        let outcome = match Box::pin(self.make(gateway, class, &installation)).await {
            Ok(Ok(report)) => self.say(gateway, report).await,
            // What runs goes on as it is.
            Ok(Err(Problem(message))) => {
                self.say(gateway, status::invalid(gateway, "InvalidParameters", message)).await
            }
            Err(error) => {
                // Whoever looks at the object sees why nothing moves; the first error counts.
                if let Err(error) = self.say(gateway, status::failed(gateway, &error)).await {
                    tracing::warn!(%error, "the failure could not be written to the status");
                }
                Err(error)
            }
        };
        outcome.map(|()| Action::await_change())
    }

    /// Makes what the Gateway asks for.
    async fn make(
        &self,
        gateway: &Gateway,
        class: Option<&ParametersReference>,
        installation: &MeshInstallation,
    ) -> Result<Result<status::Report, Problem>, Error> {
        let parameters = match self.parameters(gateway, class).await? {
            Ok(parameters) => parameters,
            Err(problem) => return Ok(Err(problem)),
        };
        let proxy = proxy_settings(installation, &self.context.platform, &NativeSupport::default());
        let build::Plan { workload, problems } =
            build::plan(gateway, proxy, installation.spec.profile, &parameters);
        let objects = match workload.objects() {
            Ok(objects) => objects,
            Err(error) => {
                let source = parameters.sources.get(error.index);
                return Ok(Err(Problem(format!(
                    "{}, {error}",
                    source.map_or("the parameters", String::as_str)
                ))));
            }
        };
        let uid = gateway.uid().unwrap_or_default();
        // A Service without ports cannot be; what there is stays.
        if !workload.service.ports.is_empty() {
            let writer =
                Writer { client: &self.context.client, children: &self.children, uid: &uid };
            let mut changes = Changes::default();
            let applied = Box::pin(writer.apply(objects, &mut changes)).await;
            let gone = match &applied {
                Ok(kept) => writer.prune(kept).await,
                Err(_) => Ok(Vec::new()),
            };
            self.announce(gateway, apply::describe(&changes, gone.as_deref().unwrap_or_default()))
                .await;
            applied?;
            gone?;
        }
        let service = self.children.facts(&uid, PatchedKind::Service);
        let deployment = self.children.facts(&uid, PatchedKind::Deployment);
        Ok(Ok(status::report(gateway, &service, &deployment, &problems)))
    }

    /// The class's parameters, and over them the Gateway's own.
    async fn parameters(
        &self,
        gateway: &Gateway,
        class: Option<&ParametersReference>,
    ) -> Result<Result<Parameters, Problem>, Error> {
        let own = gateway.spec.infrastructure.as_ref();
        let own = own.and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
        let namespace = gateway.namespace().unwrap_or_default();
        let class_field =
            format!("GatewayClass {}: spec.parametersRef", gateway.spec.gateway_class_name);
        let references = [
            (class, class_field.as_str(), None),
            (own, "spec.infrastructure.parametersRef", Some(namespace.as_str())),
        ];
        let mut all = Parameters::default();
        for (reference, field, namespace) in references {
            let Some(reference) = reference else { continue };
            let place = match parameters::place(reference, field, namespace) {
                Ok(place) => place,
                Err(problem) => return Ok(Err(problem)),
            };
            let read = self.parameters.read(&self.context.client, &place, field).await;
            match &*read.map_err(|error| Error::Parameters(Box::new(error)))? {
                Ok(parameters) => all = all.join(parameters),
                Err(problem) => return Ok(Err(problem.clone())),
            }
        }
        Ok(Ok(all))
    }

    /// Nothing is made for a Gateway whose pods somebody else runs.
    async fn stand_behind(&self, gateway: &Gateway, service: &str) -> Result<Action, Error> {
        self.remove(gateway).await?;
        let namespace = gateway.namespace().unwrap_or_default();
        let found = apply::read_service(&self.context.client, &namespace, service).await?;
        let addresses = found.as_ref().map(super::gateway_workload::addresses);
        self.say(gateway, status::behind(service, addresses.as_deref())).await?;
        Ok(Action::requeue(SERVICE_INTERVAL))
    }

    /// The Gateway is not ours any more.
    async fn release(&self, gateway: &Gateway) -> Result<Action, Error> {
        if self.remove(gateway).await? {
            self.say(gateway, status::nothing()).await?;
        }
        Ok(Action::await_change())
    }

    /// Deletes all that was made for the Gateway. Whether there was anything.
    async fn remove(&self, gateway: &Gateway) -> Result<bool, Error> {
        let uid = gateway.uid().unwrap_or_default();
        let writer = Writer { client: &self.context.client, children: &self.children, uid: &uid };
        let gone = writer.prune(&[]).await?;
        self.announce(gateway, apply::describe(&Changes::default(), &gone)).await;
        Ok(!gone.is_empty())
    }

    /// Whether what there is was made for this class.
    fn is_of_class(&self, gateway: &Gateway, class: &str) -> bool {
        let name = build::object_name(&gateway.name_any(), class);
        self.children.of(&gateway.uid().unwrap_or_default()).iter().any(|key| key.name == name)
    }

    /// The installation that has this revision, or this name for one.
    fn installation(&self, revision: &str) -> Option<Arc<MeshInstallation>> {
        let known = self.context.installations.load();
        let named = |installation: &&Arc<MeshInstallation>| {
            let settings = known.inject.get(&installation.spec.revision);
            settings.is_some_and(|settings| settings.answers_to(revision))
        };
        let exact = known.objects.iter().find(|found| found.spec.revision == revision);
        exact.or_else(|| known.objects.iter().find(named)).cloned()
    }

    async fn say(&self, gateway: &Gateway, report: status::Report) -> Result<(), Error> {
        status::write(&self.context, gateway, report).await
    }

    async fn announce(&self, gateway: &Gateway, note: Option<String>) {
        let Some(note) = note else { return };
        let event = Event {
            type_: EventType::Normal,
            reason: "Applied".to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        self.context.publish(gateway, event).await;
    }
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

/// Makes our GatewayClass, and makes it again when it was deleted.
async fn keep_class(gateways: Arc<Gateways>) {
    loop {
        match apply_class(&gateways.context.client).await {
            Ok(()) => gateways.class_gone.notified().await,
            Err(error) => {
                tracing::warn!(%error, "GatewayClass {CLASS} not applied");
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
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
