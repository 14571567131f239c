//! A control plane's fleet that follows a mailbox.

use meshwright::{
    control_plane::{Fleet, Metrics, serve::drive},
    watch::{Changes, Mailbox, from_yaml},
};
use prometheus_client::registry::Registry;

/// A fleet that has seen this cluster, and the mailbox that tells it more.
pub async fn driven(cluster: &str, registry: &mut Registry) -> (Mailbox, Fleet) {
    let mailbox = Mailbox::default();
    let metrics = Metrics::new(registry);
    let fleet = Fleet::new(metrics.clone());
    let mut updates = fleet.updates();
    mailbox.put(from_yaml(cluster).unwrap(), Changes::all());
    tokio::spawn(drive(mailbox.clone(), fleet.clone(), metrics));
    updates.changed().await.unwrap();
    (mailbox, fleet)
}
