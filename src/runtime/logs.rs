//! Logs to standard error: lines for people on a terminal, JSON for everything else.

use std::io::IsTerminal;

use tracing_subscriber::{
    Layer, filter::Targets, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

const DEFAULT: &str = "info,kube_client=warn,kube_runtime=warn";

/// Starts logging. `MESHWRIGHT_LOG` says how much, by target: `debug`,
/// `info,meshwright::xds=trace`.
pub fn init() {
    init_at(None);
}

/// The same with another default: a level.
pub fn init_at(level: Option<&str>) {
    let default = level.unwrap_or(DEFAULT).to_owned();
    let wanted = std::env::var("MESHWRIGHT_LOG").unwrap_or(default);
    // Not `EnvFilter`: its regular expressions are a megabyte of code in every sidecar.
    let (filter, complaint) = match wanted.parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (DEFAULT.parse().unwrap_or_default(), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = if std::io::stderr().is_terminal() {
        lines.compact().boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(false).boxed()
    };
    // An error means that logs are set up already (tests), which is as good.
    drop(registry().with(lines.with_filter(filter)).try_init());
    if let Some(error) = complaint {
        tracing::warn!(%error, variable = "MESHWRIGHT_LOG", "not understood: the default holds");
    }
}
