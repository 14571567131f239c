//! What runs inside a namespace: listeners that say who they are, and connections that print what
//! they were told.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Says what the program shall do; unset in an ordinary run of the tests.
pub const WHAT: &str = "MESHWRIGHT_NETNS_INSIDE";
/// Stands before what a connection was told, as the test harness prints lines of its own.
pub const REPLY: &str = "reply=";
/// Printed when all listeners listen.
pub const LISTENING: &str = "listening";
/// The mark of the proxy's connections in its clients' names.
const CLIENTS_MARK: u32 = 1337;
const PATIENCE: Duration = Duration::from_secs(3);
/// Where no answer is what is expected.
const HASTE: Duration = Duration::from_millis(400);

#[test]
fn inside() {
    let Ok(what) = std::env::var(WHAT) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    match words[..] {
        ["serve", ref listeners @ ..] => serve(listeners),
        ["transparent", port] => transparent(port.parse().unwrap()),
        ["tcp", source, address, port] => tell(connect(source, address, port, PATIENCE)),
        ["hasty-tcp", source, address, port] => tell(connect(source, address, port, HASTE)),
        ["udp", source_port, address, port] => tell(ask(source_port, address, port)),
        ["broken", source, address, port] => tell(super::broken::send(source, address, port)),
        ["repeat", address, port, millis] => {
            let end = Instant::now() + Duration::from_millis(millis.parse().unwrap());
            while Instant::now() < end {
                tell(connect("-", address, port, PATIENCE));
            }
        }
        _ => panic!("{what}"),
    }
}

fn tell(reply: std::io::Result<String>) {
    let reply = reply.unwrap_or_else(|error| format!("error: {error}"));
    println!("\n{REPLY}{reply}");
}

/// Each word is `[ADDRESS@]PORT[/udp]=NAME`; whoever connects is told the name, and its own address.
fn serve(listeners: &[&str]) {
    let any = if std::path::Path::new("/proc/net/if_inet6").exists() { "::" } else { "0.0.0.0" };
    for listener in listeners {
        let (port, name) = listener.split_once('=').unwrap();
        let (address, port) = port.split_once('@').unwrap_or((any, port));
        let ip: IpAddr = address.parse().unwrap();
        let name = name.to_owned();
        match port.strip_suffix("/udp") {
            Some(port) => serve_udp(SocketAddr::new(ip, port.parse().unwrap()), name),
            None => serve_tcp(SocketAddr::new(ip, port.parse().unwrap()), name),
        }
    }
    wait();
}

fn wait() {
    println!("\n{LISTENING}");
    // The test that started this ends it.
    std::thread::park_timeout(Duration::from_mins(5));
}

fn serve_tcp(address: SocketAddr, name: String) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Ok(peer) = stream.peer_addr() else { continue };
            // A client that gave up is its own business.
            drop(write!(stream, "{name} {}", peer.ip().to_canonical()));
        }
    });
}

fn serve_udp(address: SocketAddr, name: String) {
    let socket = UdpSocket::bind(address).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let text = format!("{name} {}", peer.ip().to_canonical());
            drop(socket.send_to(text.as_bytes(), peer));
        }
    });
}

/// A connection; `-` is any source.
fn connect(source: &str, address: &str, port: &str, patience: Duration) -> std::io::Result<String> {
    let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port.parse().unwrap());
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if source != "-" {
        socket.bind(&SocketAddr::new(source.parse().unwrap(), 0).into())?;
    }
    socket.connect_timeout(&to.into(), patience)?;
    read(socket.into())
}

fn read(mut stream: TcpStream) -> std::io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

/// A question in one packet; 0 is any source port.
fn ask(source_port: &str, address: &str, port: &str) -> std::io::Result<String> {
    let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port.parse().unwrap());
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    let socket = UdpSocket::bind(format!("{}:{source_port}", bracketed(any)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected, so that an answer from another address is none.
    socket.connect(to)?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// A proxy as Envoy is one with transparent sockets: takes connections for any address, and goes on
/// to that address in its client's name.
fn transparent(port: u16) {
    for any in ["0.0.0.0", "::"] {
        let address: SocketAddr = format!("{}:{port}", bracketed(any)).parse().unwrap();
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(true).unwrap();
        }
        socket.set_ip_transparent_v4(true).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        let listener: TcpListener = socket.into();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut downstream = stream.unwrap();
                let said = forward(&downstream).unwrap_or_else(|error| format!("error: {error}"));
                drop(write!(downstream, "inbound>{said}"));
            }
        });
    }
    wait();
}

fn forward(downstream: &TcpStream) -> std::io::Result<String> {
    let (client, to) = (downstream.peer_addr()?, downstream.local_addr()?);
    let upstream = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    upstream.set_ip_transparent_v4(true)?;
    upstream.set_mark(CLIENTS_MARK)?;
    upstream.bind(&SocketAddr::new(client.ip(), 0).into())?;
    upstream.connect_timeout(&to.into(), PATIENCE)?;
    read(upstream.into())
}
