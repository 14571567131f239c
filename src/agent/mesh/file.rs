//! The table across a restart of the agent: the control plane may be away just then.

use std::{io, path::Path, time::Duration};

use prost::Message;
use tokio::sync::watch;

use crate::{
    agent::mesh::{
        Table,
        protocol::{Any, Resource, Response},
    },
    xds::names::{HOST_TYPE_URL, Host},
};

/// Changes come together, and a table that is some seconds old does as well.
const PAUSE: Duration = Duration::from_secs(5);

/// Writes the table whenever it has changed. Does not return while the table is kept.
pub async fn keep(path: &Path, mut hosts: watch::Receiver<Table>) {
    while hosts.changed().await.is_ok() {
        tokio::time::sleep(PAUSE).await;
        let bytes = encode(&hosts.borrow_and_update());
        if let Err(error) = write(path, &bytes) {
            tracing::warn!(path = %path.display(), %error, "cannot keep the mesh's hosts for a restart");
        }
    }
}

/// The table that was written, or an empty one.
pub fn read(path: &Path) -> Table {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Table::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the mesh's hosts");
            return Table::default();
        }
    };
    let Some(table) = decode(&bytes) else {
        tracing::warn!(path = %path.display(), "the file holds no hosts; ignoring it");
        return Table::default();
    };
    tracing::info!(hosts = table.len(), "read the mesh's hosts");
    table
}

/// As the response that would bring it: one format is enough.
fn encode(table: &Table) -> Vec<u8> {
    let resources = table.hosts().map(|(name, version, host)| Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any { type_url: String::new(), value: host.encode_to_vec().into() }),
    });
    let (resources, type_url) = (resources.collect(), HOST_TYPE_URL.to_owned());
    Response { resources, type_url, ..Response::default() }.encode_to_vec()
}

fn decode(bytes: &[u8]) -> Option<Table> {
    let response = Response::decode(bytes).ok().filter(|r| r.type_url == HOST_TYPE_URL)?;
    let mut table = Table::default();
    for Resource { version, resource, name } in response.resources {
        let host = Host::decode(resource?.value).ok()?;
        table.insert(&name, &version, &host).ok()?;
    }
    Some(table)
}

/// A reader sees the old file or the new one, never a part.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::mesh::table::tests::table;

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        assert!(read(&path).is_empty(), "the first start");
        let known =
            table(&["cart.shop 10.0.0.1 fd00::1", "db.shop -> db.example.com", "*.a.b ::1"]);
        write(&path, &encode(&known)).unwrap();
        assert_eq!(read(&path), known);
        write(&path, &encode(&Table::default())).unwrap();
        assert!(read(&path).is_empty());
    }

    #[test]
    fn another_file_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let good = encode(&table(&["cart.shop 10.0.0.1"]));
        for bytes in [&b"127.0.0.1 localhost\n"[..], &[], &good[..good.len() - 3]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(read(&path).is_empty(), "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_changes_is_written_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hosts");
        let sender = watch::Sender::new(Table::default());
        let kept = sender.subscribe();
        let task = tokio::spawn({
            let path = path.clone();
            async move { keep(&path, kept).await }
        });
        sender.send_replace(table(&["a.b 10.0.0.1"]));
        tokio::time::sleep(PAUSE / 2).await;
        assert!(!path.exists());
        sender.send_replace(table(&["a.b 10.0.0.1", "c.d 10.0.0.2"]));
        tokio::time::sleep(PAUSE).await;
        assert_eq!(read(&path).len(), 2);
        drop(sender);
        task.await.unwrap();
    }
}
