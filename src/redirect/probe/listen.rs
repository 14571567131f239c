//! The proxy's ports on loopback, where redirected packets of the pod itself arrive.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use super::What;
use crate::redirect::{Dns, Family, Protocol, RedirectPlan, plan::DNS_PORT};

/// Sockets on those ports that are free.
pub(super) struct Listeners {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Listeners {
    pub(super) fn of(plan: &RedirectPlan, families: &[Family]) -> Self {
        let dns = (plan.dns != Dns::Off).then_some(DNS_PORT);
        let ports = [plan.proxy_port, plan.inbound_port].into_iter().chain(dns);
        let mut this = Self { tcp: Vec::new(), udp: Vec::new() };
        for address in families.iter().map(|family| family.loopback().address) {
            // A port that cannot be had is somebody else's, and is not probed.
            let tcp = ports.clone().filter_map(|port| TcpListener::bind((address, port)).ok());
            this.tcp.extend(tcp.filter(|listener| listener.set_nonblocking(true).is_ok()));
            let udp = dns.and_then(|port| UdpSocket::bind((address, port)).ok());
            this.udp.extend(udp.filter(|socket| socket.set_nonblocking(true).is_ok()));
        }
        this
    }

    /// Whether we listen where this would arrive.
    pub(super) fn on(&self, family: Family, what: What, port: u16) -> bool {
        let at = SocketAddr::new(family.loopback().address, port);
        if what == What::Dns(Protocol::Udp) {
            self.udp.iter().any(|socket| socket.local_addr().is_ok_and(|own| own == at))
        } else {
            self.tcp.iter().any(|socket| socket.local_addr().is_ok_and(|own| own == at))
        }
    }

    /// The port at which the connection from `client` arrived. Redirection changes only where it
    /// goes.
    pub(super) fn took(&self, client: SocketAddr, patience: Duration) -> Option<u16> {
        within(patience, || {
            self.tcp.iter().find_map(|listener| {
                while let Ok((_, peer)) = listener.accept() {
                    if same(peer, client) {
                        return listener.local_addr().ok().map(|own| own.port());
                    }
                }
                None
            })
        })
    }

    /// The same for a packet.
    pub(super) fn received(&self, client_port: u16, patience: Duration) -> Option<u16> {
        within(patience, || {
            self.udp.iter().find_map(|socket| {
                let mut buffer = [0; 64];
                loop {
                    match socket.recv_from(&mut buffer) {
                        Ok((_, peer)) if peer.port() == client_port => {
                            return socket.local_addr().ok().map(|own| own.port());
                        }
                        Err(error) if error.kind() != ErrorKind::Interrupted => return None,
                        _ => {}
                    }
                }
            })
        })
    }
}

/// Asks until there is an answer or no time left.
fn within<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if answer.is_some() || begun.elapsed() >= patience {
            return answer;
        }
        sleep(Duration::from_millis(2));
    }
}

fn same(one: SocketAddr, other: SocketAddr) -> bool {
    let ip = |address: SocketAddr| -> IpAddr { address.ip().to_canonical() };
    one.port() == other.port() && ip(one) == ip(other)
}
