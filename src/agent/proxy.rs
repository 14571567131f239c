//! The Envoy process.

use std::{io, path::Path, process::ExitStatus, time::Duration};

use tokio::process::{Child, Command};

use crate::agent::{admin::Admin, settings::Settings};

/// How long Envoy may take to exit once it was told to.
const EXIT_LIMIT: Duration = Duration::from_secs(3);

/// A running Envoy, killed when dropped.
pub(super) struct Proxy {
    child: Child,
    admin: Admin,
}

/// Why Envoy does not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot write {path}")]
    Bootstrap { path: String, source: io::Error },
    #[error("cannot start {path}")]
    Start { path: String, source: io::Error },
}

/// How often a leftover Envoy is looked for until it has gone.
const POLL: Duration = Duration::from_millis(20);

/// Ends an Envoy that a killed agent has left behind: it has the ports, and its readiness would pass
/// for ours. A container whose first process is the agent has none, as the kernel ends it with the
/// agent; one of a pod that shares its processes may have.
pub(super) async fn end_leftover(admin: Admin) {
    if !admin.is_there().await {
        return;
    }
    tracing::warn!("an Envoy is left of an agent that was killed; telling it to exit");
    let gone = async {
        while admin.is_there().await {
            drop(admin.post("/quitquitquit").await);
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(EXIT_LIMIT, gone).await.is_err() {
        tracing::warn!("the leftover Envoy does not exit; ours may not get its ports");
    }
}

impl Proxy {
    /// Writes the bootstrap and starts Envoy with it.
    pub(super) fn start(settings: &Settings, admin: Admin) -> Result<Self, Error> {
        let file = settings.bootstrap_file();
        let text = crate::agent::bootstrap::bootstrap(settings).to_string();
        std::fs::write(&file, text)
            .map_err(|source| Error::Bootstrap { path: file.display().to_string(), source })?;
        let child = Command::new(&settings.envoy)
            .args(arguments(settings, &file))
            // Signals of a terminal are for the agent, which lets connections end first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| Error::Start {
                path: settings.envoy.display().to_string(),
                source,
            })?;
        Ok(Self { child, admin })
    }

    /// Returns when Envoy has ended.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Tells Envoy to exit, and waits until it has.
    pub(super) async fn stop(mut self) {
        if let Err(error) = self.admin.post("/quitquitquit").await {
            tracing::debug!(%error, "Envoy did not hear that it should exit");
        }
        if tokio::time::timeout(EXIT_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("Envoy did not exit in time; killing it");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(%error, "cannot kill Envoy");
            }
        }
    }
}

fn arguments(settings: &Settings, bootstrap: &Path) -> Vec<String> {
    let ip_version = if settings.pod_ip.is_ipv4() { "v4" } else { "v6" };
    let text = [
        ("-c", bootstrap.display().to_string()),
        ("--concurrency", settings.concurrency.to_string()),
        ("--log-level", settings.proxy_log_level.clone()),
        ("--local-address-ip-version", ip_version.to_owned()),
        // In a drain every answer asks its client to leave.
        ("--drain-strategy", "immediate".to_owned()),
        ("--drain-time-s", settings.drain.as_secs().max(1).to_string()),
    ];
    let mut arguments: Vec<String> =
        text.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
    // A hot restart needs shared memory that the pod does not have, for a restart that never comes.
    arguments.push("--disable-hot-restart".to_owned());
    arguments
}
