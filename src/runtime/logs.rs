//! Logs to standard error.

use tracing_subscriber::EnvFilter;

/// Starts logging, as `RUST_LOG` says or else at level info.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // An error means that a logger is set already, as in tests.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
}
