//! The agent's parts put together, from start to end.

use std::{process::ExitStatus, sync::Arc};

use anyhow::{Context, bail};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    task::JoinSet,
};

use crate::agent::{
    Settings,
    admin::Admin,
    drain::Drain,
    identity::{self, Secrets},
    metrics::{Figures, Sources},
    optional, out_of_service,
    proxy::{self, Proxy},
    readiness::Readiness,
    sds, server,
    settings::ports,
};

/// Runs until the pod is stopped, or Envoy ends.
pub(super) async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut reopen = listen(SignalKind::user_defined1())?;
    let settings = Arc::new(settings);
    let admin = Admin::default();
    proxy::end_leftover(admin).await;
    let readiness = Readiness::new(admin);
    let drain = Drain::new(admin, readiness.clone(), &settings);
    let quit = Arc::new(Notify::new());
    let agent = server::Agent {
        settings: Arc::clone(&settings),
        readiness: readiness.clone(),
        drain: drain.clone(),
        sources: Sources::new(admin, &settings),
        figures: Arc::default(),
        quit: Arc::clone(&quit),
    };
    let mut tasks = start(&agent).await?;
    // Envoy starts while the certificate is on its way, and waits for it only at the end.
    let mut proxy = Proxy::start(&settings, admin)?;
    tracing::info!(identity = %settings.identity, role = %settings.role, "started");
    loop {
        tokio::select! {
            status = proxy.ended() => bail!("Envoy ended by itself: {}", ending(status)),
            Some(task) = tasks.join_next() => match task {
                Ok(result) => result?,
                Err(error) => bail!("a part of the agent failed: {error}"),
            },
            () = quit.notified() => break,
            () = stop.asked() => break,
            _ = reopen.recv() => drop(admin.post("/reopen_logs").await),
        }
    }
    tracing::info!(limit_seconds = settings.drain.as_secs(), "stopping: letting connections end");
    tokio::select! {
        () = drain.run() => proxy.stop().await,
        _ = proxy.ended() => {}
        () = stop.asked() => proxy.stop().await,
    }
    Ok(())
}

/// Opens what must be open before Envoy starts, and starts the parts.
async fn start(agent: &server::Agent) -> anyhow::Result<JoinSet<anyhow::Result<()>>> {
    let settings = &agent.settings;
    let path = settings.sds_socket();
    let socket =
        sds::bind(&path).with_context(|| format!("cannot open the socket {}", path.display()))?;
    let (agent_port, health_port) = (ports::AGENT, settings.health_port);
    let listener = server::listen(agent_port)
        .await
        .with_context(|| format!("cannot listen on port {agent_port}"))?;
    let (secrets, receiver) = watch::channel(Secrets::default());

    let mut tasks = JoinSet::new();
    optional::start(agent, &secrets, &mut tasks).await?;
    tasks.spawn(async move { sds::serve(socket, receiver).await.context("cannot serve secrets") });
    tasks.spawn(forever(identity::keep_roots(Arc::clone(settings), secrets.clone())));
    let figures: Arc<Figures> = Arc::clone(&agent.figures);
    tasks.spawn(forever(identity::keep_certificate(Arc::clone(settings), secrets, figures)));
    tasks.spawn(forever(server::serve(listener, server::router(agent.clone()))));
    // The agent's own port answers for readiness as well.
    if health_port != agent_port {
        let health = server::listen(health_port)
            .await
            .with_context(|| format!("cannot listen on port {health_port}"))?;
        tasks.spawn(forever(server::serve(health, server::health_router(agent.clone()))));
    }
    let (folder, admin) = (settings.pod_dir.clone(), Admin::default());
    tasks.spawn(forever(out_of_service::follow(folder, admin, agent.readiness.clone())));
    let readiness = agent.readiness.clone();
    tasks.spawn(async move {
        readiness.started().await;
        tracing::info!("ready");
        Ok(())
    });
    Ok(tasks)
}

async fn forever(part: impl Future<Output = ()>) -> anyhow::Result<()> {
    part.await;
    Ok(())
}

fn ending(status: std::io::Result<ExitStatus>) -> String {
    match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    }
}

/// The signals that end the agent.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        let terminate = listen(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}
