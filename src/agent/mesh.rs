//! What the agent knows of the mesh: its hosts, and whether the pod's applications have finished.
//!
//! One delta-ADS stream to the control plane, over mutual TLS with the workload's own certificate,
//! opened only where someone needs it ([`stream`]). What was learned stays while the control plane is
//! away, and across a restart of the agent in a [`file`].

use std::sync::Arc;

use tokio::sync::watch;

use crate::agent::{Settings, identity::Secrets};

pub mod file;
mod protocol;
mod session;
pub mod stream;
pub mod table;

pub use table::Table;

/// Where the stream puts what it learns.
#[derive(Debug)]
pub struct Learned {
    pub hosts: watch::Sender<Table>,
    pub finished: watch::Sender<bool>,
}

impl Learned {
    /// Begins with what an earlier run of this agent knew.
    pub fn new(settings: &Settings) -> Self {
        let hosts = if settings.dns_capture {
            file::read(&settings.hosts_file())
        } else {
            Table::default()
        };
        Self { hosts: watch::Sender::new(hosts), finished: watch::Sender::new(false) }
    }
}

/// Learns, and keeps the file. Does not return.
pub async fn keep(settings: Arc<Settings>, secrets: watch::Receiver<Secrets>, learned: Learned) {
    let (file, hosts) = (settings.hosts_file(), learned.hosts.subscribe());
    tokio::join!(file::keep(&file, hosts), stream::keep(&settings, secrets, &learned));
}
