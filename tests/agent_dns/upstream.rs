//! A name server as the cluster's would be, on loopback.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinHandle,
};

/// A running server.
pub struct Upstream {
    pub port: u16,
    asked: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Upstream {
    pub async fn start() -> Self {
        Self::at(0).await
    }

    pub async fn at(port: u16) -> Self {
        let tcp = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = Arc::new(UdpSocket::bind(("127.0.0.1", port)).await.unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let tasks = vec![
            tokio::spawn(serve_udp(udp, Arc::clone(&asked))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&asked))),
        ];
        Self { port, asked, tasks }
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub async fn stop(self) {
        for task in self.tasks {
            task.abort();
            drop(task.await);
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 1024];
    loop {
        let (length, from): (usize, SocketAddr) = socket.recv_from(&mut buffer).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        let query = Message::from_vec(&buffer[..length]).unwrap();
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            let mut reply = answer(&query).await;
            if reply.answers.len() > 10 {
                reply.answers.truncate(10);
                reply.metadata.truncation = true;
            }
            // Somebody else's answer, which must not be taken.
            let mut forged = reply.clone();
            forged.metadata.id ^= 1;
            forged.answers.clear();
            for message in [forged, reply] {
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        });
    }
}

async fn serve_tcp(listener: TcpListener, asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        let length = stream.read_u16().await.unwrap();
        let mut buffer = vec![0; length.into()];
        stream.read_exact(&mut buffer).await.unwrap();
        let reply = answer(&Message::from_vec(&buffer).unwrap()).await.to_vec().unwrap();
        stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
        stream.write_all(&reply).await.unwrap();
    }
}

/// `short.`: one second; `slow.`: late; `big.`: 100 addresses; `gone.`: no such name; `broken.`: a
/// failure; anything else has one address.
async fn answer(query: &Message) -> Message {
    let mut reply = query.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_available = true;
    let name = query.queries[0].name().clone();
    let text = name.to_ascii();
    let first = text.split('.').next().unwrap().to_ascii_lowercase();
    let zone = Name::from_ascii("example.org.").unwrap();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 2, 3, 4, 60);
    let absent = Record::from_rdata(zone, 60, RData::SOA(soa));
    let address = |ttl, n| Record::from_rdata(name.clone(), ttl, RData::A(A::new(192, 0, 2, n)));
    match &*first {
        "gone" => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(absent);
        }
        "broken" => reply.metadata.response_code = ResponseCode::ServFail,
        _ if query.queries[0].query_type() != RecordType::A => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(absent);
        }
        "big" => {
            reply.add_answers((0..100).map(|n| address(60, n)));
        }
        "short" => {
            reply.add_answer(address(1, 1));
        }
        "slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            reply.add_answer(address(60, 1));
        }
        _ => {
            reply.add_answer(address(60, 1));
        }
    }
    reply
}
