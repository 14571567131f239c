//! The line protocols: every line comes back with the server's name before it.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::lifecycle::{Phase, PhaseWatch, reached};
use crate::serve::App;
use crate::server::accept;

/// Who speaks first on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Client,
    /// As MySQL and SMTP do: a proxy that waits for the client's first byte hangs here.
    Server,
}

/// Serves lines on a listener until told to stop.
pub async fn serve(listener: TcpListener, app: Arc<App>, first: First, phase: PhaseWatch) {
    let phases = phase.clone();
    accept(listener, phase, move |stream, _| {
        let (app, mut phase) = (app.clone(), phases.clone());
        async move {
            tokio::select! {
                // A connection that the peer broke off is no news to anybody.
                _ = converse(stream, &app, first) => {}
                () = reached(&mut phase, Phase::Stopping) => {}
            }
        }
    })
    .await;
}

async fn converse(stream: TcpStream, app: &App, first: First) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    if first == First::Server {
        stream.write_all(format!("{} ready\n", app.who.words()).as_bytes()).await?;
    }
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        app.count_request();
        stream.write_all(format!("{}> {}\n", app.who.words(), line.trim_end()).as_bytes()).await?;
        line.clear();
    }
    Ok(())
}
