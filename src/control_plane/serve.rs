//! The role: everything that the control plane does at once, and its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use kube::Client;
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::Instant};

use super::{
    Args, attribution::attribute, engine::Rebuilt, fleet::Fleet, metrics::Metrics, report,
};
use crate::{
    ca::{self, Authority},
    control_plane::Engine,
    identity::SpiffeId,
    operator::platform::OPERATOR,
    runtime::{
        self,
        leader::LeaderElection,
        tls::{Linger, LiveTls},
    },
    status::{self, Findings},
    watch::{self as cluster, Mailbox, Snapshot},
    xds::server::Server,
};

/// The control plane's own certificate lasts longer than this by far.
const CERTIFICATE_RENEWAL: Duration = Duration::from_hours(6);
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// Plans are made when proxies ask, so what is found in them comes at any time.
const FINDINGS_CHECK: Duration = Duration::from_secs(1);

/// How long a replica that leaves goes on accepting proxies, and keeps those it has: sent away before
/// the Service has forgotten it, they would only come back. Its pod has 30 s to end.
const LINGER: Linger = Linger { quiet: Duration::from_secs(3), longest: Duration::from_secs(10) };

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let insecure = bind_insecure(args.insecure_xds_address).await?;
    let client = runtime::kube_client(args.kubeconfig.as_deref()).await?;
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let (ready, readiness) = watch::channel(false);
    let admin = runtime::admin::serve(args.admin_address, Arc::new(registry), readiness);
    let mut admin = tokio::spawn(admin);

    let scope = cluster::Scope {
        system_namespace: args.namespace.clone(),
        revision: args.revision.clone(),
    };
    let fleet = Fleet::new(metrics.clone());
    let mailbox = cluster::start(&client, &scope);
    tokio::spawn(drive(mailbox, fleet.clone(), metrics));
    let election = start_election(&client, &args);
    let leader = election.subscribe();
    // What only the leader writes; everything else goes through the plain client.
    let leaders_client = election.fence().client(&client);

    let authority = ca::load_or_create(client.clone(), &args.namespace).await?;
    let authority = Arc::new(authority);
    let roots = authority.root_pem().to_owned();
    tokio::spawn(ca::distribute(leaders_client.clone(), roots, leader.clone()));
    let (findings, found) = watch::channel(Findings::default());
    tokio::spawn(gather(fleet.clone(), findings));
    tokio::spawn(status::write(leaders_client, leader, found));

    let server = Server::new(Arc::new(fleet.clone()));
    tokio::spawn(release_idle(server.clone()));
    let stop = watch::Sender::new(false);
    let serving = serve_xds(&args, client, authority, &fleet, server.clone(), &stop).await?;
    let plaintext = insecure.map(|listener| {
        let router = server.plaintext().router();
        tokio::spawn(runtime::tls::serve_plaintext(listener, router, stopped(&stop)))
    });
    ready.send_replace(true);
    tracing::info!(address = %args.xds_address, revision = args.revision, "serving");

    let outcome = tokio::select! {
        () = runtime::shutdown::signal() => Ok(()),
        ended = &mut admin => ended.context("the admin server panicked").and_then(|ended| ended),
    };
    ready.send_replace(false);
    stop.send_replace(true);
    election.release().await;
    for task in [Some(serving), plaintext].into_iter().flatten() {
        drop(task.await);
    }
    outcome
}

/// Plaintext is for measurements from the same machine: whoever reaches it reads the whole mesh.
async fn bind_insecure(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    anyhow::ensure!(
        address.ip().is_loopback(),
        "--insecure-xds-address {address} is not a loopback address: configuration without TLS is \
         served to this machine only; use 127.0.0.1:PORT"
    );
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for plaintext xDS"))?;
    tracing::warn!(%address, "serving configuration without TLS or any check of who asks");
    Ok(Some(listener))
}

fn start_election(client: &Client, args: &Args) -> LeaderElection {
    let identity = std::env::var("POD_NAME")
        .unwrap_or_else(|_| format!("outside-the-cluster-{}", std::process::id()));
    LeaderElection::start(client.clone(), &args.namespace, super::LEASE, &identity)
}

/// xDS and the CA over TLS, once there is something to serve.
async fn serve_xds(
    args: &Args,
    client: Client,
    authority: Arc<Authority>,
    fleet: &Fleet,
    server: Server,
    stop: &watch::Sender<bool>,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = TcpListener::bind(args.xds_address)
        .await
        .with_context(|| format!("cannot listen on {} for xDS", args.xds_address))?;
    let mut updates = fleet.updates();
    let world = loop {
        match fleet.world() {
            Some(world) => break world,
            None => updates.changed().await.context("the watches ended")?,
        }
    };
    let mesh = &world.config.mesh.config;
    let names = args.server_names(&mesh.cluster_domain);
    let config = ca::tls::server_config(&authority, &names, OffsetDateTime::now_utc())?;
    let tls = Arc::new(LiveTls::new(config));
    tokio::spawn(renew(tls.clone(), authority.clone(), names));
    let callers = ca::TokenReviews::new(client.clone(), mesh.trust_domain.clone());
    let operator = SpiffeId {
        trust_domain: mesh.trust_domain.clone(),
        namespace: args.namespace.clone(),
        service_account: OPERATOR.to_owned(),
    };
    let reports = report::router(fleet.clone(), callers, operator, stop.subscribe());
    let tokens = ca::TokenReviews::new(client, mesh.trust_domain.clone());
    let ca = ca::Service::new(authority, tokens, mesh.trust_domain.clone()).into_server();
    let router =
        tonic::service::Routes::new(ca).into_axum_router().merge(server.router()).merge(reports);
    Ok(tokio::spawn(runtime::tls::serve_lingering(listener, tls, router, stopped(stop), LINGER)))
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + use<> {
    let mut stop = stop.subscribe();
    async move { drop(stop.wait_for(|stop| *stop).await) }
}

async fn renew(tls: Arc<LiveTls>, authority: Arc<Authority>, names: Vec<String>) {
    loop {
        tokio::time::sleep(CERTIFICATE_RENEWAL).await;
        match ca::tls::server_config(&authority, &names, OffsetDateTime::now_utc()) {
            Ok(config) => tls.replace(config),
            Err(error) => tracing::error!(%error, "cannot renew the server's certificate"),
        }
    }
}

async fn release_idle(server: Server) {
    loop {
        tokio::time::sleep(IDLE_CHECK).await;
        server.release_idle();
    }
}

/// Snapshots → worlds, for ever. Endpoints go through while a rebuild runs beside.
pub async fn drive(mailbox: Mailbox, fleet: Fleet, metrics: Metrics) {
    let mut engine = Engine::default();
    let mut snapshot = Snapshot::default();
    let mut running: Option<(JoinHandle<Rebuilt>, Instant)> = None;
    let mut wanted = None;
    loop {
        tokio::select! {
            (newest, changes) = mailbox.take() => {
                let since = Instant::now();
                snapshot = newest;
                fleet.set_pods(&snapshot.pods, &changes.finished);
                let update = engine.endpoints(&snapshot, &changes, since.into_std());
                if let Some(world) = update.world {
                    fleet.publish(world);
                }
                if changes.config || update.needs_rebuild {
                    wanted.get_or_insert(since);
                }
            }
            rebuilt = finished(&mut running) => if let Some((rebuilt, since)) = rebuilt {
                metrics.rebuilt(since.elapsed());
                fleet.publish(engine.install(rebuilt, &snapshot, since.into_std()));
            },
        }
        if running.is_none()
            && let Some(since) = wanted.take()
        {
            let rebuild = engine.rebuild(snapshot.clone(), fleet.scopes());
            running = Some((tokio::task::spawn_blocking(move || rebuild.run()), since));
        }
    }
}

/// The running rebuild's outcome; never, if none runs.
async fn finished(
    running: &mut Option<(JoinHandle<Rebuilt>, Instant)>,
) -> Option<(Rebuilt, Instant)> {
    let Some((task, since)) = running else { return std::future::pending().await };
    let (outcome, since) = (task.await, *since);
    *running = None;
    match outcome {
        Ok(rebuilt) => Some((rebuilt, since)),
        // The process is ending.
        Err(error) if error.is_cancelled() => None,
        Err(error) => {
            // A bug; the last good world stays in force, and the next change tries again.
            tracing::error!(%error, "a rebuild failed");
            None
        }
    }
}

/// Everything that is known to be wrong, for the status writer.
async fn gather(fleet: Fleet, findings: watch::Sender<Findings>) {
    let mut refusals = fleet.refusals();
    let mut generation = 0;
    loop {
        tokio::select! {
            changed = refusals.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(FINDINGS_CHECK) => {}
        }
        let Some(world) = fleet.world() else { continue };
        let diagnostics = world.config.diagnostics();
        let rejections = attribute(&fleet.refused(), &world.config.mesh);
        let rebuilt = std::mem::replace(&mut generation, world.config.generation) != generation;
        findings.send_if_modified(|last| {
            let changed =
                rebuilt || *last.diagnostics != diagnostics || *last.rejections != rejections;
            if changed {
                *last = Findings {
                    snapshot: world.config.snapshot.clone(),
                    mesh: world.config.mesh.clone(),
                    diagnostics: Arc::new(diagnostics),
                    rejections: Arc::new(rejections),
                };
            }
            changed
        });
        if findings.is_closed() {
            return;
        }
    }
}
