//! The agent's DNS over real sockets, with a name server upstream that is the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "agent_dns/upstream.rs"]
mod upstream;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use meshwright::{
    agent::{
        dns::{Config, Figures, Resolver, Sockets, answer::Domains, serve},
        mesh::Table,
    },
    xds::names::Host,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
};
use upstream::Upstream;

struct Running {
    addresses: Vec<SocketAddr>,
    figures: Arc<Figures>,
    hosts: watch::Sender<Table>,
    _resolv_conf: tempfile::NamedTempFile,
    _tasks: JoinSet<()>,
}

/// Starts the agent's DNS with these servers upstream.
async fn start(servers: &[&str], port: u16) -> Running {
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    let mut text = "search shop.svc.cluster.local svc.cluster.local cluster.local\n".to_owned();
    text.extend(servers.iter().map(|server| format!("nameserver {server}\n")));
    std::fs::write(resolv_conf.path(), text).unwrap();
    let config = Config {
        domains: Domains::new("shop", "cluster.local"),
        resolv_conf: resolv_conf.path().to_owned(),
        upstream_port: port,
    };
    let (hosts, figures) = (watch::Sender::new(Table::default()), Arc::<Figures>::default());
    let resolver = Resolver::new(config, hosts.subscribe(), Arc::clone(&figures));
    let sockets = Sockets::bind(0).await.unwrap();
    let addresses = sockets.addresses().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(sockets, Arc::new(resolver)));
    Running { addresses, figures, hosts, _resolv_conf: resolv_conf, _tasks: tasks }
}

impl Running {
    fn learn(&self, name: &str, host: &Host) {
        self.hosts.send_modify(|table| table.insert(name, "1", host).unwrap());
    }

    fn figure(&self, name: &str) -> u64 {
        let values = self.figures.values();
        values.into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    async fn ask(&self, name: &str) -> Message {
        over_udp(self.addresses[0], &question(name, RecordType::A)).await
    }
}

fn host(addresses: &[[u8; 4]]) -> Host {
    Host { addresses: addresses.iter().map(|a| a.to_vec().into()).collect(), ..Host::default() }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn over_udp(to: SocketAddr, message: &Message) -> Message {
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(&message.to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!((reply.id, &reply.queries), (message.id, &message.queries));
    reply
}

/// Several questions on one connection.
async fn over_tcp(to: SocketAddr, messages: &[Message]) -> Vec<Message> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    for message in messages {
        let bytes = message.to_vec().unwrap();
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    let mut replies = Vec::new();
    for _ in messages {
        let mut buffer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut buffer).await.unwrap();
        replies.push(Message::from_vec(&buffer).unwrap());
    }
    replies
}

fn addresses(message: &Message) -> Vec<String> {
    let address = |data: &RData| match data {
        RData::A(address) => Some(address.to_string()),
        _ => None,
    };
    message.answers.iter().filter_map(|record| address(&record.data)).collect()
}

#[tokio::test]
async fn a_host_is_answered_over_everything_without_upstream() {
    let running = start(&["127.0.0.1"], 1).await;
    running.learn("cart.shop.svc.cluster.local", &host(&[[10, 96, 0, 1]]));
    let asked = question("Cart.shop.svc.cluster.LOCAL.", RecordType::A);
    for to in &running.addresses {
        let udp = over_udp(*to, &asked).await;
        let tcp = over_tcp(*to, std::slice::from_ref(&asked)).await.remove(0);
        for reply in [udp, tcp] {
            assert_eq!(addresses(&reply), ["10.96.0.1"], "{to}");
            assert!(
                reply.authoritative && reply.queries[0].name().eq_case(asked.queries[0].name())
            );
            assert_eq!(reply.answers[0].ttl, 30);
        }
    }
    let expanded = running.ask("cart.shop.shop.svc.cluster.local.").await;
    assert_eq!((expanded.answers.len(), addresses(&expanded)), (2, vec!["10.96.0.1".to_owned()]));
    assert_eq!(running.figure("dns_forwarded_total"), 0);
}

#[tokio::test]
async fn the_rest_is_forwarded_once() {
    let upstream = Upstream::start().await;
    let running = start(&["127.0.0.1"], upstream.port).await;
    for spelling in ["www.example.org.", "WWW.example.org."] {
        let reply = running.ask(spelling).await;
        assert_eq!(addresses(&reply), ["192.0.2.1"]);
        assert!(reply.answers[0].ttl <= 60);
    }
    let gone = running.ask("gone.example.org.").await;
    assert_eq!(gone.response_code, ResponseCode::NXDomain);
    assert_eq!(running.ask("gone.example.org.").await.response_code, ResponseCode::NXDomain);
    assert_eq!(upstream.asked(), 2);
    let figures = ["requests", "forwarded", "cache_hits", "failures"]
        .map(|name| running.figure(&format!("dns_{name}_total")));
    assert_eq!(figures, [4, 2, 2, 0]);
}

#[tokio::test]
async fn a_question_on_its_way_is_not_asked_again() {
    let upstream = Upstream::start().await;
    let running = start(&["127.0.0.1"], upstream.port).await;
    let replies =
        futures::future::join_all((0..50).map(|_| running.ask("slow.example.org."))).await;
    assert!(replies.iter().all(|reply| addresses(reply) == ["192.0.2.1"]));
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn a_long_answer_comes_over_tcp() {
    let upstream = Upstream::start().await;
    let running = start(&["127.0.0.1"], upstream.port).await;
    let udp = running.ask("big.example.org.").await;
    assert!(udp.truncation, "as much as fits, and a sign that there is more");
    assert!(udp.answers.len() > 20, "{}", udp.answers.len());
    let asked = ["big.example.org.", "www.example.org."].map(|name| question(name, RecordType::A));
    let tcp = over_tcp(running.addresses[0], &asked).await;
    assert_eq!(tcp.iter().map(|reply| reply.answers.len()).collect::<Vec<_>>(), [100, 1]);
    assert_eq!(upstream.asked(), 3, "over UDP and TCP, and the other name");
}

#[tokio::test]
async fn another_server_is_asked_when_one_is_away() {
    let upstream = Upstream::start().await;
    // Nobody listens on 127.0.0.2.
    let running = start(&["127.0.0.2", "127.0.0.1"], upstream.port).await;
    assert_eq!(addresses(&running.ask("www.example.org.").await), ["192.0.2.1"]);
    let broken = running.ask("broken.example.org.").await;
    assert_eq!(broken.response_code, ResponseCode::ServFail, "upstream's own word");
}

#[tokio::test]
async fn old_answers_serve_while_upstream_is_away() {
    let upstream = Upstream::start().await;
    let port = upstream.port;
    let running = start(&["127.0.0.1"], port).await;
    assert_eq!(addresses(&running.ask("short.example.org.").await), ["192.0.2.1"]);
    upstream.stop().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for _ in 0..2 {
        let stale = running.ask("short.example.org.").await;
        assert_eq!(addresses(&stale), ["192.0.2.1"]);
        assert_eq!(stale.answers[0].ttl, 30);
    }
    let unknown = running.ask("www.example.org.").await;
    assert_eq!(unknown.response_code, ResponseCode::ServFail);
    assert_eq!(running.figure("dns_failures_total"), 1);
    let back = Upstream::at(port).await;
    assert_eq!(addresses(&running.ask("www.example.org.").await), ["192.0.2.1"]);
    back.stop().await;
}

#[tokio::test]
async fn an_alias_of_an_outside_name_comes_with_its_addresses() {
    let upstream = Upstream::start().await;
    let running = start(&["127.0.0.1"], upstream.port).await;
    let alias = Host { alias: "db.example.org".to_owned(), ..Host::default() };
    running.learn("db.shop.svc.cluster.local", &alias);
    for _ in 0..2 {
        let reply = running.ask("db.shop.svc.cluster.local.").await;
        assert_eq!(reply.answers.len(), 2, "{reply:?}");
        assert!(
            matches!(&reply.answers[0].data, RData::CNAME(to) if to.0.to_ascii() == "db.example.org.")
        );
        assert_eq!(addresses(&reply), ["192.0.2.1"]);
    }
    assert_eq!(upstream.asked(), 1);
}

#[tokio::test]
async fn a_host_of_the_mesh_exists_whatever_upstream_says() {
    let upstream = Upstream::start().await;
    let running = start(&["127.0.0.1"], upstream.port).await;
    running.learn("only.mesh", &host(&[[240, 0, 0, 1]]));
    let reply = over_udp(running.addresses[0], &question("only.mesh.", RecordType::MX)).await;
    assert_eq!((reply.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
    let other = over_udp(running.addresses[0], &question("other.mesh.", RecordType::MX)).await;
    assert_eq!(other.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn noise_gets_no_answer_and_does_no_harm() {
    let running = start(&["127.0.0.1"], 1).await;
    running.learn("cart.shop", &host(&[[10, 96, 0, 1]]));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(running.addresses[0]).await.unwrap();
    let mut response = question("cart.shop.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    for packet in [&b"noise"[..], &[], &[0xff; 600], &response.to_vec().unwrap()] {
        socket.send(packet).await.unwrap();
    }
    socket.send(&question("cart.shop.", RecordType::A).to_vec().unwrap()).await.unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await.unwrap();
    let first = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(addresses(&first), ["10.96.0.1"], "the first answer is to the only question");

    let mut stream = TcpStream::connect(running.addresses[0]).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    assert!(!matches!(stream.read(&mut buffer).await, Ok(length) if length > 0), "closed");
}
