//! The end of a pod whose applications have finished: a Job's, with a classic sidecar, would never
//! end while its proxy runs.

use tokio::sync::watch;

/// Returns when the applications have finished.
pub(super) async fn finished(mut finished: watch::Receiver<bool>) {
    if finished.wait_for(|finished| *finished).await.is_err() {
        // Nobody will ever know.
        std::future::pending::<()>().await;
    }
    tracing::info!("the pod's applications have finished");
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn ends_when_the_applications_have_and_not_when_nobody_knows() {
        let sender = watch::Sender::new(false);
        let mut ending = pin!(finished(sender.subscribe()));
        assert!(ending.as_mut().now_or_never().is_none());
        sender.send_replace(true);
        ending.await;
        let receiver = watch::Sender::new(false).subscribe();
        assert!(finished(receiver).now_or_never().is_none());
    }
}
