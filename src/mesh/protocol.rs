//! Which protocol a Service port speaks, as Istio chooses it.

use super::Protocol;
use crate::watch::snapshot::ServicePort;

/// Ports on which the server usually speaks first: looking at the client's first bytes there would
/// wait for ever.
const SERVER_FIRST: [u16; 12] = [21, 22, 23, 25, 110, 119, 143, 587, 2525, 3306, 5900, 33060];
/// Ports of well-known protocols that are not HTTP.
const TCP: [u16; 2] = [53, 27017];

/// The protocol of a port: from `appProtocol`, else from the first word of its name, else from its
/// number, else to be found out by looking.
pub fn of(port: &ServicePort) -> Protocol {
    if port.transport == "UDP" {
        return Protocol::Udp;
    }
    match declared(port) {
        // Many a MySQL is declared as plain tcp.
        Some(Protocol::Tcp) | None if SERVER_FIRST.contains(&port.port) => Protocol::ServerFirst,
        Some(protocol) => protocol,
        None if TCP.contains(&port.port) => Protocol::Tcp,
        None => Protocol::Detect,
    }
}

fn declared(port: &ServicePort) -> Option<Protocol> {
    let text = match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => return Some(Protocol::Http2),
        Some("kubernetes.io/ws") => return Some(Protocol::Http1),
        Some("kubernetes.io/wss") => return Some(Protocol::Tls),
        Some(text) => text,
        None => &port.name,
    };
    let text = text.to_ascii_lowercase();
    // gRPC-Web is ordinary HTTP/1.1 or HTTP/2, unlike every other name that begins with grpc.
    if text.starts_with("grpc-web") {
        return Some(Protocol::Http1);
    }
    Some(match text.split('-').next().unwrap_or_default() {
        "http" => Protocol::Http1,
        "http2" | "h2c" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "https" | "tls" => Protocol::Tls,
        "tcp" | "mongo" | "redis" => Protocol::Tcp,
        "mysql" | "smtp" | "ftp" | "imap" | "pop3" | "ssh" => Protocol::ServerFirst,
        "udp" => Protocol::Udp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_then_name_then_number() {
        for (name, app_protocol, number, want) in [
            ("http", None, 80, Protocol::Http1),
            ("http-web", None, 80, Protocol::Http1),
            ("HTTP", None, 80, Protocol::Http1),
            ("http2", None, 80, Protocol::Http2),
            ("grpc-api", None, 80, Protocol::Grpc),
            ("grpc-web", None, 80, Protocol::Http1),
            ("https", None, 443, Protocol::Tls),
            ("tcp-http", None, 80, Protocol::Tcp),
            ("tcp", None, 3306, Protocol::ServerFirst),
            ("mysql", None, 1, Protocol::ServerFirst),
            ("", None, 3306, Protocol::ServerFirst),
            ("web", None, 25, Protocol::ServerFirst),
            ("http", None, 25, Protocol::Http1),
            ("", None, 27017, Protocol::Tcp),
            ("", None, 80, Protocol::Detect),
            ("httpx", None, 80, Protocol::Detect),
            ("http", Some("kubernetes.io/h2c"), 80, Protocol::Http2),
            ("", Some("kubernetes.io/ws"), 80, Protocol::Http1),
            ("", Some("grpc"), 80, Protocol::Grpc),
            ("http", Some("example.com/own"), 80, Protocol::Detect),
        ] {
            let port = ServicePort {
                name: name.to_owned(),
                port: number,
                transport: "TCP".to_owned(),
                app_protocol: app_protocol.map(str::to_owned),
                ..ServicePort::default()
            };
            assert_eq!(of(&port), want, "{name} {app_protocol:?} {number}");
        }
    }

    #[test]
    fn transport_wins() {
        let port = ServicePort {
            name: "http3".to_owned(),
            transport: "UDP".to_owned(),
            ..ServicePort::default()
        };
        assert_eq!(of(&port), Protocol::Udp);
    }
}
