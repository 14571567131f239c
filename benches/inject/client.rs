//! Sends reviews as the API server does: HTTP/2 over TLS, one connection, many streams at a time.
//!
//! The frames are written and read by hand, because the client runs on the same cores as the server:
//! what it costs is not to be had by the server. Answers to the same question must be the same, byte
//! for byte, so that only the first has to be understood.

mod frames;

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use frames::{Frame, Kind};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Streams at a time, less than any server allows.
const MOST_STREAMS: usize = 100;
/// What the server may send before it hears from us again.
const WINDOW: u32 = 1 << 30;

/// How reviews follow each other.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many at a time, the next when one is answered.
    Wide(usize),
    /// At constant intervals, whether the earlier ones are answered or not.
    Every(Duration),
}

/// A review, and what came back for it the first time.
pub struct Question {
    body: Bytes,
    answer: Option<Vec<u8>>,
}

impl Question {
    pub fn new(body: Bytes) -> Self {
        Self { body, answer: None }
    }

    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// The pod must have been injected, and always in the same way.
    fn check(&mut self, answer: Vec<u8>) -> anyhow::Result<()> {
        if let Some(known) = &self.answer {
            ensure!(*known == answer, "another answer to the same question");
            return Ok(());
        }
        let review: Value = serde_json::from_slice(&answer)?;
        ensure!(review["response"]["patchType"] == "JSONPatch", "{review}");
        self.answer = Some(answer);
        Ok(())
    }
}

/// A connection to the webhook.
pub struct Client {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    incoming: BytesMut,
    outgoing: BytesMut,
    next_stream: u32,
    /// Bytes of bodies that the server takes now, and those of one stream.
    window: i64,
    stream_window: i64,
    /// Bytes that were received since the server was last told to go on.
    received: u32,
}

/// Reviews that are under way, by stream: when each was due, and what came back so far.
type Running = HashMap<u32, (Instant, Vec<u8>)>;

impl Client {
    pub async fn connect(
        address: SocketAddr,
        root: CertificateDer<'static>,
    ) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(root)?;
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect("localhost".try_into()?, stream).await?;
        let (reader, writer) = tokio::io::split(stream);
        let mut client = Self {
            reader,
            writer,
            incoming: BytesMut::with_capacity(1 << 16),
            outgoing: frames::preface(WINDOW),
            next_stream: 1,
            window: frames::INITIAL_WINDOW,
            stream_window: frames::INITIAL_WINDOW,
            received: 0,
        };
        // Until the server has said how much it takes.
        while client.stream_window == frames::INITIAL_WINDOW {
            client.transfer(None).await?;
            client.take(&mut Running::new(), &mut |_, _| bail!("an answer without a question"))?;
        }
        Ok(client)
    }

    /// Asks so often. What comes back is how long each review took: since it was due, so that one
    /// that had to wait for others is as late as it is.
    pub async fn ask(
        &mut self,
        question: &mut Question,
        count: u32,
        pace: Pace,
    ) -> anyhow::Result<Vec<Duration>> {
        let start = Instant::now();
        let (mut running, mut sent) = (Running::new(), 0);
        let mut times = Vec::with_capacity(usize::try_from(count)?);
        let body = question.body.clone();
        let size = i64::try_from(body.len())?;
        ensure!(size <= self.stream_window, "the server takes no such body at once");
        while times.len() < times.capacity() {
            let mut wait = None;
            while sent < count && running.len() < MOST_STREAMS && size <= self.window {
                let due = match pace {
                    Pace::Wide(width) if running.len() >= width => break,
                    Pace::Wide(_) => Instant::now(),
                    Pace::Every(interval) => start + interval * sent,
                };
                if due > Instant::now() {
                    wait = Some(due);
                    break;
                }
                frames::request(&mut self.outgoing, self.next_stream, &body);
                running.insert(self.next_stream, (due, Vec::new()));
                self.window -= size;
                self.next_stream += 2;
                sent += 1;
            }
            self.transfer(wait).await?;
            self.take(&mut running, &mut |due, answer| {
                times.push(due.elapsed());
                question.check(answer)
            })?;
        }
        Ok(times)
    }

    /// Sends and receives what there is, or waits for something to receive, at most until then.
    async fn transfer(&mut self, until: Option<Instant>) -> anyhow::Result<()> {
        let due = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        self.incoming.reserve(1 << 16);
        tokio::select! {
            biased;
            sent = self.writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => {
                sent?;
                if self.outgoing.is_empty() {
                    self.writer.flush().await?;
                }
            }
            read = self.reader.read_buf(&mut self.incoming) => {
                ensure!(read? > 0, "the server has closed the connection");
            }
            () = due => {}
        }
        Ok(())
    }

    /// Reads the frames that are there.
    fn take(
        &mut self,
        running: &mut Running,
        answered: &mut impl FnMut(Instant, Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(frame) = Frame::take(&mut self.incoming) {
            match frame.kind {
                Kind::Settings { initial_window } => {
                    self.stream_window = initial_window.unwrap_or(self.stream_window);
                    frames::acknowledge_settings(&mut self.outgoing);
                }
                Kind::Window(bytes) if frame.stream == 0 => self.window += i64::from(bytes),
                Kind::Ping(opaque) => frames::pong(&mut self.outgoing, opaque),
                Kind::Headers { is_ok } => ensure!(is_ok, "the server does not answer with 200"),
                Kind::Data { part, last } => {
                    self.received += u32::try_from(part.len())?;
                    let (_, answer) = running.get_mut(&frame.stream).context("a stray answer")?;
                    answer.extend_from_slice(&part);
                    if last && let Some((due, answer)) = running.remove(&frame.stream) {
                        answered(due, answer)?;
                    }
                }
                Kind::Broken(what) => bail!("the server sent {what}"),
                Kind::Window(_) | Kind::Nothing => {}
            }
        }
        if self.received > WINDOW / 2 {
            frames::window(&mut self.outgoing, std::mem::take(&mut self.received));
        }
        Ok(())
    }
}
