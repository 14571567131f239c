//! The Envoy process.

use std::{io, path::Path, process::ExitStatus, time::Duration};

use serde_json::{Map, Value};
use tokio::process::{Child, Command};

use crate::agent::{admin::Admin, bootstrap, settings::Settings};

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
    #[error(
        "cannot read {path}, which the ConfigMap of the annotation bootstrap-override must hold"
    )]
    Override { path: String, source: io::Error },
    #[error("{path}, of the annotation bootstrap-override, is no JSON object")]
    OverrideForm { path: String, source: serde_json::Error },
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
        let mut bootstrap = bootstrap::bootstrap(settings);
        if let Some(part) = settings.bootstrap_override.as_deref().map(read_override).transpose()? {
            bootstrap::merge(&mut bootstrap, part.into());
        }
        let text = bootstrap.to_string();
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

fn read_override(file: &Path) -> Result<Map<String, Value>, Error> {
    let path = || file.display().to_string();
    let text =
        std::fs::read_to_string(file).map_err(|source| Error::Override { path: path(), source })?;
    serde_json::from_str(&text).map_err(|source| Error::OverrideForm { path: path(), source })
}

fn arguments(settings: &Settings, bootstrap: &Path) -> Vec<String> {
    let ip_version = if settings.pod_ip.is_ipv4() { "v4" } else { "v6" };
    let listener_drain = settings.listener_drain.unwrap_or(settings.drain);
    let text = [
        ("-c", bootstrap.display().to_string()),
        ("--log-level", settings.proxy_log_level.clone()),
        ("--local-address-ip-version", ip_version.to_owned()),
        // In a drain every answer asks its client to leave.
        ("--drain-strategy", "immediate".to_owned()),
        ("--drain-time-s", listener_drain.as_secs().max(1).to_string()),
    ];
    let concurrency =
        (settings.concurrency > 0).then(|| ("--concurrency", settings.concurrency.to_string()));
    let components = (!settings.component_log_level.is_empty())
        .then(|| ("--component-log-level", settings.component_log_level.clone()));
    let mut arguments: Vec<String> = text
        .into_iter()
        .chain(concurrency)
        .chain(components)
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
    // A hot restart needs shared memory that the pod does not have, for a restart that never comes.
    arguments.push("--disable-hot-restart".to_owned());
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::settings::tests::settings;

    fn arguments_of(changes: &[(&str, &str)]) -> String {
        arguments(&settings(changes).unwrap(), Path::new("envoy.json")).join(" ")
    }

    #[test]
    fn envoy_is_told_what_the_pod_chose() {
        let told = arguments_of(&[
            ("MESHWRIGHT_PROXY_COMPONENT_LOG_LEVEL", "upstream:debug"),
            ("MESHWRIGHT_LISTENER_DRAIN_SECONDS", "45"),
            ("MESHWRIGHT_CONCURRENCY", "0"),
            ("MESHWRIGHT_CPU_LIMIT", "1500"),
        ]);
        for want in ["--component-log-level upstream:debug", "--drain-time-s 45", "--concurrency 2"]
        {
            assert!(told.contains(want), "{want} in {told}");
        }
    }

    #[test]
    fn what_nobody_chose_is_left_to_envoy() {
        let told = arguments_of(&[("MESHWRIGHT_CONCURRENCY", "0")]);
        assert!(!told.contains("--concurrency") && !told.contains("--component"), "{told}");
    }

    #[test]
    fn a_broken_override_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("custom_bootstrap.json");
        assert!(read_override(&file).unwrap_err().to_string().contains("custom_bootstrap.json"));
        std::fs::write(&file, "[]").unwrap();
        assert!(read_override(&file).unwrap_err().to_string().contains("no JSON object"));
        std::fs::write(&file, r#"{"admin":{}}"#).unwrap();
        assert!(read_override(&file).unwrap().contains_key("admin"));
    }
}
