//! Asking the servers upstream: one after the other, over UDP, and over TCP for what UDP cut.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_proto::op::ResponseCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::agent::{
    dns::wire::{Question, Reply},
    retry::random_bits,
};

/// How long each server may take, in the first round and in the second. Clients ask again after 5 s.
const ROUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(2500)];
/// No client waits longer for all servers together.
const TOTAL: Duration = Duration::from_secs(5);
const TCP_PATIENCE: Duration = Duration::from_secs(2);
/// A server that did not answer is asked last for so long.
const AVOIDED: Duration = Duration::from_secs(30);
/// What a server may send over UDP, whatever it was told.
const LARGEST: usize = 4096;

/// The servers' state.
#[derive(Debug, Default)]
pub(super) struct Upstream {
    failed: Mutex<HashMap<IpAddr, Instant>>,
}

/// Whether a reply says something about the name, not about the server.
pub(super) fn is_good(reply: &Reply) -> bool {
    matches!(reply.code(), ResponseCode::NoError | ResponseCode::NXDomain)
}

impl Upstream {
    /// The best reply that can be had: a good one of any server, else a refusal, else none.
    pub(super) async fn ask(
        &self,
        servers: &[IpAddr],
        port: u16,
        question: &Question,
    ) -> Option<Reply> {
        let end = Instant::now() + TOTAL;
        let mut refusal = None;
        for patience in ROUNDS {
            for server in self.in_order(servers, Instant::now()) {
                let left = end.saturating_duration_since(Instant::now());
                let address = SocketAddr::new(server, port);
                match exchange(address, question, patience.min(left)).await {
                    Ok(reply) if is_good(&reply) => {
                        self.failed().remove(&server);
                        return Some(reply);
                    }
                    Ok(reply) => refusal = Some(reply),
                    Err(error) => {
                        tracing::debug!(%address, %error, "no answer from a DNS server");
                        self.failed().insert(server, Instant::now());
                    }
                }
            }
            if refusal.is_some() {
                break;
            }
        }
        refusal
    }

    /// The servers in the file's order, those that failed lately at the end.
    fn in_order(&self, servers: &[IpAddr], now: Instant) -> Vec<IpAddr> {
        let mut failed = self.failed();
        failed.retain(|_, at| now.saturating_duration_since(*at) < AVOIDED);
        let mut servers = servers.to_vec();
        servers.sort_by_key(|server| failed.contains_key(server));
        servers
    }

    fn failed(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, Instant>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one server.
async fn exchange(to: SocketAddr, question: &Question, patience: Duration) -> io::Result<Reply> {
    let id = u16::try_from(random_bits() >> 48).unwrap_or_default();
    let request = question.encode(id);
    let reply = timeout(patience, over_udp(to, &request, question)).await??;
    if !reply.is_truncated() {
        return Ok(reply);
    }
    match timeout(TCP_PATIENCE, over_tcp(to, &request, question)).await {
        Ok(Ok(whole)) => Ok(whole),
        // A part is better than nothing, and says itself that it is one.
        Ok(Err(_)) | Err(_) => Ok(reply),
    }
}

/// From a new port each time, so that a forged answer has to guess it and the id.
async fn over_udp(to: SocketAddr, request: &[u8], question: &Question) -> io::Result<Reply> {
    let from: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(from).await?;
    socket.connect(to).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // What does not fit the question was not sent by the server.
        if let Some(reply) = reply_to(request, &buffer[..length], question) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(to: SocketAddr, request: &[u8], question: &Question) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(to).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    reply_to(request, &buffer, question).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn reply_to(request: &[u8], answer: &[u8], question: &Question) -> Option<Reply> {
    let same_id = answer.get(..2) == request.get(..2);
    same_id.then(|| Reply::adopt(answer.to_vec(), question)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_failed_is_asked_last_for_a_while() {
        let servers: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).into();
        let upstream = Upstream::default();
        let now = Instant::now();
        assert_eq!(upstream.in_order(&servers, now), servers);
        upstream.failed().insert(servers[0], now);
        assert_eq!(upstream.in_order(&servers, now), [servers[1], servers[0]]);
        assert_eq!(upstream.in_order(&servers, now + AVOIDED), servers);
        upstream.failed().extend([(servers[0], now), (servers[1], now)]);
        assert_eq!(upstream.in_order(&servers, now), servers, "all are as bad as each other");
    }
}
