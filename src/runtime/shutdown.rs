//! When to stop.

use tokio::signal::unix::{SignalKind, signal as unix_signal};

/// Resolves at the first SIGTERM or SIGINT.
pub async fn signal() {
    let wait = |kind| async move {
        match unix_signal(kind) {
            Ok(mut stream) => {
                stream.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot listen for a signal; only SIGKILL will end this");
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
    tracing::info!("stopping");
}
