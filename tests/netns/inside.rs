//! What runs inside a namespace: listeners that say who they are, and connections that print what
//! they were told.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener},
    time::{Duration, Instant},
};

/// Says what the program shall do; unset in an ordinary run of the tests.
pub const WHAT: &str = "MESHWRIGHT_NETNS_INSIDE";
/// Stands before what `connect` was told, as the test harness prints lines of its own.
pub const REPLY: &str = "reply=";
/// Printed when all listeners listen.
pub const LISTENING: &str = "listening";

#[test]
fn inside() {
    let Ok(what) = std::env::var(WHAT) else { return };
    let words: Vec<&str> = what.split(' ').collect();
    match words[..] {
        ["serve", ref listeners @ ..] => serve(listeners),
        ["connect", source, address, port] => {
            println!("\n{REPLY}{}", connect(source, address, port));
        }
        ["repeat", address, port, millis] => {
            let end = Instant::now() + Duration::from_millis(millis.parse().unwrap());
            while Instant::now() < end {
                println!("\n{REPLY}{}", connect("-", address, port));
            }
        }
        _ => panic!("{what}"),
    }
}

/// Each word is `PORT=NAME`; whoever connects to the port is told the name.
fn serve(listeners: &[&str]) {
    for listener in listeners {
        let (port, name) = listener.split_once('=').unwrap();
        let name = name.to_owned();
        let address =
            if std::path::Path::new("/proc/net/if_inet6").exists() { "[::]" } else { "0.0.0.0" };
        let listener = TcpListener::bind(format!("{address}:{port}")).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that gave up is its own business.
                drop(stream.unwrap().write_all(name.as_bytes()));
            }
        });
    }
    println!("\n{LISTENING}");
    // The test that started this ends it.
    std::thread::park_timeout(Duration::from_mins(5));
}

/// Only tokio's sockets can be bound before they connect.
fn connect(source: &str, address: &str, port: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port.parse().unwrap());
    let connecting = async {
        let socket = match to {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        if source != "-" {
            socket.bind(SocketAddr::new(source.parse().unwrap(), 0))?;
        }
        let stream = tokio::time::timeout(Duration::from_secs(3), socket.connect(to)).await??;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        std::io::Result::Ok(stream)
    };
    let mut said = String::new();
    match runtime.block_on(connecting).and_then(|mut stream| stream.read_to_string(&mut said)) {
        Ok(_) => said,
        Err(error) => format!("error: {error}"),
    }
}
