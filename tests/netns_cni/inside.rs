//! What runs inside a pod's namespace: this test binary again, started through nsenter.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

/// What to do inside.
pub const WHAT: &str = "MESHWRIGHT_CNI_INSIDE";
pub const LISTENING: &str = "listening";
pub const REPLY: &str = "reply: ";

/// Not a test by itself: nothing to do unless it was started inside.
#[test]
fn inside() {
    match std::env::var(WHAT).as_deref() {
        Ok("serve") => serve(),
        Ok(address) => println!("\n{REPLY}{}", connect(address.parse().unwrap())),
        Err(_) => {}
    }
}

/// What the proxy listens on for outbound connections.
fn serve() {
    let listener = TcpListener::bind("0.0.0.0:15001").unwrap();
    println!("\n{LISTENING}");
    for stream in listener.incoming() {
        // Whoever connects may be gone.
        drop(stream.unwrap().write_all(b"proxy"));
    }
}

fn connect(to: SocketAddr) -> String {
    let mut said = String::new();
    let connected = TcpStream::connect_timeout(&to, Duration::from_millis(500));
    match connected.and_then(|mut stream| stream.read_to_string(&mut said)) {
        Ok(_) => said,
        Err(_) => "nobody".to_owned(),
    }
}
