//! Wires the operator's parts together and runs them.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Controller, controller,
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    Args,
    context::{Context, changes},
    definitions,
    fleet::{self, Fleet},
    gateway_api,
    installation::{error_policy, reconcile},
    platform::{OPERATOR, Platform, WebhookEndpoint},
    rollout::{self},
    webhooks,
};
use crate::{
    api::meshwright::{
        MeshInstallation,
        labels::{INSTALLATION, MANAGED_BY, MANAGER},
    },
    runtime::{
        admin,
        client::counted_client,
        leader::{self, Fence, LeaderElection},
        logs, shutdown,
        tls::{self, Linger},
        writes::Writes,
    },
    webhook::{
        certificate::keeper::Keeper,
        events::Events,
        metrics::Metrics,
        server::{self, Webhooks},
    },
};

/// How long a replica that leaves goes on answering reviews. A Service forgets it within a second or
/// two, on a busy cluster later; the pod has 30 s, and open connections take up to five of them.
const LINGER: Linger = Linger { quiet: Duration::from_secs(5), longest: Duration::from_secs(15) };

/// Runs the operator until it is told to stop.
pub fn run(args: Args) -> anyhow::Result<()> {
    logs::init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start threads")?
        .block_on(operate(args))
}

async fn operate(args: Args) -> anyhow::Result<()> {
    let writes = Writes::default();
    let client = counted_client(args.kubeconfig.as_deref(), &writes).await?;
    let platform = platform(&args);
    let mut tasks = JoinSet::new();
    let stop = shutdown::signal().boxed().shared();

    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    writes.register(&mut registry, "meshwright_operator");
    let fleet = Fleet::new(args.token_file.clone(), fleet::Metrics::register(&mut registry));
    let (ready, readiness) = watch::channel(false);
    tasks.spawn(admin::serve(args.admin_address, Arc::new(registry), readiness));

    let keeper = Keeper::start(client.clone(), &args.namespace, webhook_names(&platform)).await?;
    let (tls, webhook_ca) = (keeper.tls(), keeper.trusted());
    tasks.spawn(keeper.run().map(Ok));

    let recorder = Recorder::new(client.clone(), Reporter::from(MANAGER));
    let (changed_sender, changed) = watch::channel(());
    let webhooks =
        webhook_state(&client, &platform, &recorder, metrics, changed_sender, &mut tasks).await?;
    let installations = webhooks.installations.clone();
    let routes = server::router(webhooks);
    let listener = TcpListener::bind(args.webhook_address)
        .await
        .with_context(|| format!("cannot listen on {} for webhooks", args.webhook_address))?;
    let (leave, left) = oneshot::channel::<()>();
    let told_to_leave = left.map(drop);
    let serving = tokio::spawn(tls::serve_lingering(listener, tls, routes, told_to_leave, LINGER));
    tasks.spawn(
        webhooks::register_validator(client.clone(), platform.clone(), webhook_ca.clone()).map(Ok),
    );

    let election = election(&client, &args);
    let leading = election.as_ref().map_or_else(leader::always, LeaderElection::subscribe);
    let (reports, definitions) = watch::channel(definitions::Report::default());
    let fence = election.as_ref().map_or_else(Fence::open, LeaderElection::fence);
    let context = Arc::new(Context {
        recorder,
        installations,
        changed,
        fleet,
        definitions,
        webhook_ca,
        ..Context::new(client.clone(), platform)
    });
    tasks.spawn(lead(context, leading, fence, reports).map(Ok));
    ready.send_replace(true);
    tracing::info!(webhooks = %args.webhook_address, "the operator runs");

    let outcome = first_end(stop, &mut tasks).await;
    hand_over(&ready, leave, election, serving).await;
    // Until here: what the webhooks read is kept up to date by these.
    tasks.shutdown().await;
    outcome
}

/// Lets another replica take over: it leads at once, and gets the reviews as soon as the API server
/// knows that this one is leaving. Until then they are answered here.
async fn hand_over(
    ready: &watch::Sender<bool>,
    leave: oneshot::Sender<()>,
    election: Option<LeaderElection>,
    serving: JoinHandle<()>,
) {
    ready.send_replace(false);
    // Its receiver is gone if serving has ended, and then there is nothing to tell it.
    leave.send(()).ok();
    if let Some(election) = election {
        election.release().await;
    }
    drop(serving.await);
    tracing::info!("handed over");
}

/// What the webhooks work with, and what keeps it up to date.
async fn webhook_state(
    client: &Client,
    platform: &Platform,
    recorder: &Recorder,
    metrics: Metrics,
    changed: watch::Sender<()>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Webhooks> {
    let installations = Arc::new(ArcSwap::default());
    let (client, platform) = (client.clone(), platform.clone());
    let namespaces =
        webhooks::Mirror::start(client, platform, installations.clone(), changed, tasks).await?;
    let (events, posting) = Events::new(recorder.clone());
    tasks.spawn(posting.map(Ok));
    Ok(Webhooks { installations, namespaces, metrics, events })
}

/// Waits until somebody stops us, or until a task ends, which none does unless it failed.
async fn first_end(
    stop: impl Future<Output = ()>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stop => Ok(()),
        Some(ended) = tasks.join_next() => ended.context("a part of the operator panicked")?,
    }
}

fn platform(args: &Args) -> Platform {
    let webhook = args.webhook_url.clone().map_or(WebhookEndpoint::Service, WebhookEndpoint::Url);
    args.images.clone().platform(args.namespace.clone(), webhook)
}

/// What the webhooks' certificate must be for.
fn webhook_names(platform: &Platform) -> BTreeSet<String> {
    let host = match &platform.webhook {
        WebhookEndpoint::Service => format!("{OPERATOR}.{}.svc", platform.namespace),
        WebhookEndpoint::Url(url) => {
            let uri = url.parse::<http::Uri>().unwrap_or_default();
            uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned()
        }
    };
    [host].into()
}

fn election(client: &Client, args: &Args) -> Option<LeaderElection> {
    if args.no_leader_election {
        return None;
    }
    let identity =
        std::env::var("POD_NAME").unwrap_or_else(|_| format!("{OPERATOR}-{}", std::process::id()));
    Some(LeaderElection::start(client.clone(), &args.namespace, OPERATOR, &identity))
}

/// Runs the controllers whenever this replica leads.
async fn lead(
    context: Arc<Context>,
    mut leading: watch::Receiver<bool>,
    fence: Fence,
    reports: watch::Sender<definitions::Report>,
) {
    loop {
        if leading.wait_for(|leads| *leads).await.is_err() {
            return std::future::pending().await;
        }
        tracing::info!("leading: the controllers start");
        let client = fence.of_this_term().client(&context.client);
        let context = Arc::new(Context { client, ..(*context).clone() });
        let over = || {
            let mut leading = leading.clone();
            async move {
                // Nobody is left to take the lead away.
                if leading.wait_for(|leads| !*leads).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            biased;
            // At once, whatever they are in the middle of: another replica may lead already.
            () = over() => tracing::info!("not leading any more: the controllers stop"),
            ((), ()) = futures::future::join(
                installations(context.clone(), over()),
                gateway_api::run(context.clone(), over()),
            ) => {}
            () = fleet::follow(&context) => {}
            () = rollout::run(&context) => {}
            () = definitions::run(context.clone(), reports.clone(), std::future::pending()) => {}
        }
        // A controller that ends for another reason starts again, but not in a busy loop.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn installations(
    context: Arc<Context>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let client = context.client.clone();
    let api = Api::<DeserializeGuard<MeshInstallation>>::all(client.clone());
    let fleet = changes(context.fleet.summaries());
    let rollouts = changes(context.rollouts.subscribe());
    let webhook_ca = changes(context.webhook_ca.clone());
    let definitions = changes(context.definitions.clone());
    // An installation that another one was in the way of can go on when that one is gone.
    let others = changes(context.changed.clone());
    let controller = Controller::new(api, watcher::Config::default())
        .with_config(controller::Config::default().debounce(Duration::from_millis(100)));
    let controller = made_for::<Deployment>(controller, &client);
    let controller = made_for::<HorizontalPodAutoscaler>(controller, &client);
    let controller = made_for::<PodDisruptionBudget>(controller, &client);
    let controller = made_for::<Service>(controller, &client);
    let controller = made_for::<ServiceAccount>(controller, &client);
    let controller = made_for::<Role>(controller, &client);
    let controller = made_for::<RoleBinding>(controller, &client);
    let controller = made_for::<ClusterRole>(controller, &client);
    let controller = made_for::<ClusterRoleBinding>(controller, &client);
    made_for::<MutatingWebhookConfiguration>(controller, &client)
        .reconcile_all_on(fleet)
        .reconcile_all_on(rollouts)
        .reconcile_all_on(webhook_ca)
        .reconcile_all_on(definitions)
        .reconcile_all_on(others)
        .graceful_shutdown_on(stop)
        .run(reconcile, error_policy, context)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                tracing::debug!(%error, "installation not reconciled");
            }
        })
        .await;
}

type InstallationController = Controller<DeserializeGuard<MeshInstallation>>;

/// Lets changes of objects of a kind, of which only the metadata is read, reconcile the installation
/// that they were made for. `Controller::owns` will not do: it looks for the owner in the object's
/// own namespace, so that a cluster-scoped one is reconciled under several names at once.
fn made_for<K>(controller: InstallationController, client: &Client) -> InstallationController
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let api = Api::<PartialObjectMeta<K>>::all(client.clone());
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    controller.watches(api, ours, |object| {
        object.labels().get(INSTALLATION).map(|name| ObjectRef::new(name))
    })
}
