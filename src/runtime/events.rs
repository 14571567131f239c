//! Kubernetes Events, for `kubectl describe`.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, Recorder};

/// The API server's limit.
const LONGEST_NOTE: usize = 1000;

/// Publishes an event about an object. That is best effort: it must not hold anything up.
pub async fn publish(recorder: &Recorder, about: &ObjectReference, mut event: Event) {
    if let Some(note) = event.note.as_mut().filter(|note| note.len() > LONGEST_NOTE) {
        note.truncate(note.floor_char_boundary(LONGEST_NOTE));
    }
    if let Err(error) = recorder.publish(&event, about).await {
        tracing::debug!(%error, "event not published");
    }
}
