//! A packet that no connection can have: an acknowledgement of a beginning that never was.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

const SOURCE_PORT: u16 = 40_404;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 0x04;

/// Sends it, and says whether the pod answers that there is no such connection.
pub fn send(source: &str, address: &str, port: &str) -> std::io::Result<String> {
    let from: IpAddr = source.parse().unwrap();
    let to: IpAddr = address.parse().unwrap();
    let port: u16 = port.parse().unwrap();
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to(&segment(from, to, port), &SocketAddr::new(to, 0).into())?;
    let begun = Instant::now();
    let mut buffer = [0; 256];
    while begun.elapsed() < Duration::from_millis(500) {
        match (&socket).read(&mut buffer) {
            Ok(length) if is_reset(&buffer[..length], to.is_ipv4(), port) => {
                return Ok("reset".to_owned());
            }
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok("silence".to_owned())
}

fn segment(from: IpAddr, to: IpAddr, port: u16) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[0..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    header[2..4].copy_from_slice(&port.to_be_bytes());
    header[4..12].copy_from_slice(&[1; 8]);
    header[12] = 5 << 4;
    header[13] = SYN_ACK;
    header[14..16].copy_from_slice(&1000_u16.to_be_bytes());
    let mut summed = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(v4) => summed.extend(v4.octets()),
            IpAddr::V6(v6) => summed.extend(v6.octets()),
        }
    }
    summed.extend([0, 6, 0, 20]);
    summed.extend(&header);
    let words = summed.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).unwrap();
    header[16..18].copy_from_slice(&checksum.to_be_bytes());
    header
}

fn is_reset(packet: &[u8], v4: bool, port: u16) -> bool {
    // Only IPv4's raw sockets hand over the address header.
    let tcp = if v4 { &packet[usize::from(packet[0] & 15) * 4..] } else { packet };
    tcp[..4] == [port.to_be_bytes(), SOURCE_PORT.to_be_bytes()].concat()[..] && tcp[13] & RST != 0
}
