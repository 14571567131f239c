//! Start, drain, stop: what a well-behaved server does between SIGTERM and its end.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Still accepts, because not everybody knows yet, and asks HTTP/1 clients to leave.
    Draining,
    /// Accepts nothing more, finishes what is in flight.
    Stopping,
}

/// The phase as every part of the server sees it.
pub type PhaseWatch = watch::Receiver<Phase>;

/// Waits until the server has come to `phase`. A vanished sender counts as the last one.
pub async fn reached(watch: &mut PhaseWatch, phase: Phase) {
    // An error means that whoever drives the phases is gone, and then there is nothing to wait for.
    drop(watch.wait_for(|current| *current >= phase).await);
}

/// Completes at SIGTERM or SIGINT.
pub async fn terminated() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Goes through the phases: drains at SIGTERM, stops accepting `delay` later.
pub async fn conduct(phase: watch::Sender<Phase>, delay: Duration) -> anyhow::Result<()> {
    terminated().await?;
    phase.send_replace(Phase::Draining);
    tokio::time::sleep(delay).await;
    phase.send_replace(Phase::Stopping);
    Ok(())
}
