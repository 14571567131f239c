//! The socket on which the plugin asks.

use std::{io, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

use super::{redirector::Redirector, sandbox::Answer};

/// Longest question.
const LIMIT: u64 = 16 * 1024;
/// How long a question may take to arrive; the plugin writes it at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause when the system gives no more connections.
const BREATH: Duration = Duration::from_millis(100);

/// Listens in place of whatever listened there before: an upgrade leaves its socket.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

/// Answers for as long as the process lives.
pub async fn serve(listener: UnixListener, redirector: Arc<Redirector>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, redirector.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the plugin");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn connection(mut stream: UnixStream, redirector: Arc<Redirector>) {
    let mut line = String::new();
    let mut reader = BufReader::new((&mut stream).take(LIMIT));
    let answer = match tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await {
        Ok(Ok(_)) => match serde_json::from_str(&line) {
            Ok(sandbox) => redirector.answer(&sandbox).await,
            Err(error) => Answer::Failed(format!("the question is not understood: {error}")),
        },
        Ok(Err(error)) => Answer::Failed(format!("the question cannot be read: {error}")),
        Err(_) => return,
    };
    // Strings always have a JSON form.
    let mut text = serde_json::to_vec(&answer).unwrap_or_default();
    text.push(b'\n');
    if let Err(error) = stream.write_all(&text).await {
        tracing::debug!(%error, "the plugin did not wait for its answer");
    }
}
