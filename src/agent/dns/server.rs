//! The sockets on loopback, UDP and TCP, of both families.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use super::{
    resolver::{Resolver, Step},
    wire::Transport,
};

/// A question is far smaller.
const LARGEST: usize = 4096;
/// Questions that wait for upstream; each holds a little memory.
const MOST_WAITING: usize = 1024;
const MOST_CONNECTIONS: usize = 64;
/// A connection on which nothing is asked for so long is closed.
const IDLE: Duration = Duration::from_secs(10);
/// Pause when the system gives no more connections.
const BREATH: Duration = Duration::from_millis(100);

/// Sockets that listen.
#[derive(Debug)]
pub struct Sockets {
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Listens on a port of 127.0.0.1, and of ::1 where there is IPv6; 0 takes any.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        let port = sockets.add(Ipv4Addr::LOCALHOST.into(), port).await?;
        match sockets.add(Ipv6Addr::LOCALHOST.into(), port).await {
            Err(error) if !is_without_ipv6(&error) => Err(error),
            _ => Ok(sockets),
        }
    }

    async fn add(&mut self, address: IpAddr, port: u16) -> io::Result<u16> {
        let tcp = TcpListener::bind((address, port)).await?;
        let port = tcp.local_addr()?.port();
        self.udp.push(Arc::new(UdpSocket::bind((address, port)).await?));
        self.tcp.push(tcp);
        Ok(port)
    }

    /// Where they listen, over TCP and UDP alike.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.tcp.iter().map(TcpListener::local_addr).collect()
    }
}

fn is_without_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT: the kernel has no IPv6 at all. ErrorKind has no name for it.
    const NO_FAMILY: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_FAMILY)
}

/// Answers on all sockets. Does not return.
pub async fn serve(sockets: Sockets, resolver: Arc<Resolver>) {
    let waiting = Arc::new(Semaphore::new(MOST_WAITING));
    let udp: FuturesUnordered<_> =
        sockets.udp.into_iter().map(|socket| serve_udp(socket, &resolver, &waiting)).collect();
    let tcp: FuturesUnordered<_> =
        sockets.tcp.into_iter().map(|listener| serve_tcp(listener, &resolver)).collect();
    tokio::join!(udp.collect::<()>(), tcp.collect::<()>());
}

async fn serve_udp(socket: Arc<UdpSocket>, resolver: &Arc<Resolver>, waiting: &Arc<Semaphore>) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive a DNS question");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        match resolver.begin(&buffer[..length], Transport::Udp) {
            Step::Ignore => {}
            Step::Reply(reply) => send(&socket, &reply, from).await,
            Step::Ask(pending) => {
                // Clients ask again.
                let Ok(permit) = Arc::clone(waiting).try_acquire_owned() else { continue };
                let (resolver, socket) = (Arc::clone(resolver), Arc::clone(&socket));
                tokio::spawn(async move {
                    let reply = resolver.end(*pending).await;
                    send(&socket, &reply, from).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(reply, to).await {
        tracing::debug!(%error, "cannot send a DNS reply");
    }
}

async fn serve_tcp(listener: TcpListener, resolver: &Arc<Resolver>) {
    let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Further clients wait in the queue of the listener.
        let permit = Arc::clone(&connections).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolver = Arc::clone(resolver);
                tokio::spawn(async move {
                    if let Err(error) = connection(stream, &resolver).await {
                        tracing::debug!(%error, "a DNS connection ended badly");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// One question after the other.
async fn connection(mut stream: TcpStream, resolver: &Resolver) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while timeout(IDLE, read(&mut stream, &mut buffer)).await?? {
        let reply = match resolver.begin(&buffer, Transport::Tcp) {
            Step::Ignore => return Ok(()),
            Step::Reply(reply) => reply,
            Step::Ask(pending) => resolver.end(*pending).await,
        };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes(), &*reply].concat();
        timeout(IDLE, stream.write_all(&message)).await??;
    }
    Ok(())
}

/// Reads a question; false if the client has no more.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    };
    if length > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    buffer.resize(length, 0);
    stream.read_exact(buffer).await?;
    Ok(true)
}
