//! The control plane without an API server: its engine, fleet and xDS server on loopback.

use std::{net::SocketAddr, sync::Arc};

use meshwright::{
    control_plane::{Fleet, Metrics, serve::drive},
    runtime::tls,
    watch::{Changes, Mailbox, Snapshot},
    xds::server::Server,
};
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, runtime::Runtime};

pub struct Running {
    pub address: SocketAddr,
    pub mailbox: Mailbox,
    /// Ends everything when dropped.
    _runtime: Runtime,
}

pub fn start(snapshot: Snapshot) -> anyhow::Result<Running> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let mailbox = Mailbox::default();
    let metrics = Metrics::new(&mut Registry::default());
    let fleet = Fleet::new(metrics.clone());
    let mut updates = fleet.updates();
    mailbox.put(snapshot, Changes::all());
    runtime.spawn(drive(mailbox.clone(), fleet.clone(), metrics));
    runtime.block_on(updates.changed())?;
    let server = Server::new(Arc::new(fleet)).plaintext();
    let ticker = server.clone();
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            ticker.release_idle();
        }
    });
    runtime.spawn(tls::serve_plaintext(listener, server.router(), std::future::pending()));
    Ok(Running { address, mailbox, _runtime: runtime })
}
