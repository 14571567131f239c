//! One connection, and where it ended up.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, UdpSocket},
    time::Duration,
};

use super::{Seen, Target, What, listen::Listeners};
use crate::redirect::Protocol;

/// How long a connection that somebody took may take to show up at a listener of ours.
const ARRIVAL: Duration = Duration::from_millis(200);

pub(super) fn attempt(target: &Target, listeners: &Listeners, patience: Duration) -> Seen {
    if target.what == What::Dns(Protocol::Udp) {
        return packet(target, listeners, patience);
    }
    let stream = match TcpStream::connect_timeout(&target.address, patience) {
        Ok(stream) => stream,
        Err(error) => return failed(&error),
    };
    match stream.local_addr() {
        Ok(own) => listeners.took(own, ARRIVAL).map_or(Seen::Elsewhere, Seen::At),
        Err(error) => failed(&error),
    }
}

fn packet(target: &Target, listeners: &Listeners, patience: Duration) -> Seen {
    let any = match target.address.ip() {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let sent = UdpSocket::bind((any, 0)).and_then(|socket| {
        // The head of a question without a question, should a server get it.
        socket.send_to(&[0; 12], target.address)?;
        Ok((socket.local_addr()?.port(), socket))
    });
    match sent {
        Ok((port, _open)) => listeners.received(port, patience).map_or(Seen::NoAnswer, Seen::At),
        Err(error) => failed(&error),
    }
}

fn failed(error: &std::io::Error) -> Seen {
    match error.kind() {
        ErrorKind::ConnectionRefused => Seen::Refused,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Seen::NoAnswer,
        _ => Seen::Failed(error.to_string()),
    }
}
