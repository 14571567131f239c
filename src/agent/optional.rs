//! Parts that run only where the pod needs them: knowing the mesh, DNS, the end with the
//! applications.

use std::sync::Arc;

use anyhow::Context;
use tokio::{sync::watch, task::JoinSet};

use crate::agent::{
    dns::{self, answer::Domains},
    finish,
    identity::Secrets,
    mesh::{self, Learned},
    server::Agent,
    settings::ports,
};

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// Starts what the settings ask for. DNS listens before this returns, so before the pod is ready.
pub(super) async fn start(
    agent: &Agent,
    secrets: &watch::Sender<Secrets>,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let settings = &agent.settings;
    if !settings.dns_capture && !settings.watch_completion {
        return Ok(());
    }
    let learned = Learned::new(settings);
    if settings.dns_capture {
        let port = ports::DNS;
        let sockets = dns::Sockets::bind(port)
            .await
            .with_context(|| format!("cannot listen on port {port} for DNS"))?;
        let config = dns::Config {
            domains: Domains::new(&settings.identity.namespace, &settings.cluster_domain),
            resolv_conf: RESOLV_CONF.into(),
            upstream_port: DNS_PORT,
        };
        let (hosts, figures) = (learned.hosts.subscribe(), Arc::clone(&agent.figures.dns));
        let resolver = Arc::new(dns::Resolver::new(config, hosts, figures));
        tasks.spawn(async move {
            dns::serve(sockets, resolver).await;
            Ok(())
        });
    }
    if settings.watch_completion {
        let (finished, quit) = (learned.finished.subscribe(), Arc::clone(&agent.quit));
        tasks.spawn(async move {
            finish::finished(finished).await;
            quit.notify_one();
            Ok(())
        });
    }
    let (settings, secrets) = (Arc::clone(settings), secrets.subscribe());
    tasks.spawn(async move {
        mesh::keep(settings, secrets, learned).await;
        Ok(())
    });
    Ok(())
}
