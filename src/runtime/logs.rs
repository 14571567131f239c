//! Logs to standard error: lines for people on a terminal, JSON for everything else.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging. `MESHWRIGHT_LOG` filters as `RUST_LOG` does: `debug`, `info,meshwright::xds=trace`.
pub fn init() {
    let filter = EnvFilter::try_from_env("MESHWRIGHT_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,kube_client=warn,kube_runtime=warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that logs are set up already (tests), which is as good.
    drop(if std::io::stderr().is_terminal() {
        builder.compact().try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(false).try_init()
    });
}
