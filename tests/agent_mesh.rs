//! The agent's stream to a control plane over mutual TLS: what it learns, keeps and says.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "support/ads.rs"]
mod ads;
#[path = "agent_mesh/control_plane.rs"]
mod control_plane;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use control_plane::{Server, World};
use meshwright::{
    agent::{
        Settings,
        identity::{Issued, Secrets},
        mesh::{self, Learned, Table, file},
    },
    ca::{self, Authority, Serial, Validity},
    runtime,
    xds::names::{HOST_TYPE_URL, Host, POD_TYPE_URL, Pod},
};
use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;
use tokio::{sync::watch, task::JoinHandle};

const CART: &str = "cart.shop.svc.cluster.local";
const SOON: Duration = Duration::from_secs(20);

fn authority() -> Authority {
    runtime::install_crypto_provider();
    Authority::self_signed(OffsetDateTime::now_utc(), Serial::random().unwrap()).unwrap()
}

fn issued(authority: &Authority) -> Arc<Issued> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let now = OffsetDateTime::now_utc();
    let validity = Validity::starting(now, Duration::from_hours(1));
    let identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let serial = Serial::random().unwrap();
    let chain_pem = ca::issue(&request, &identity, serial, validity, authority).unwrap();
    let not_after = now + Duration::from_hours(1);
    Arc::new(Issued { chain_pem, key_pem: key.serialize_pem(), issued_at: now, not_after })
}

fn host(last: u8) -> Host {
    Host { addresses: vec![vec![10, 96, 0, last].into()], ..Host::default() }
}

/// An agent's part that learns.
struct Agent {
    secrets: watch::Sender<Secrets>,
    hosts: watch::Receiver<Table>,
    finished: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Agent {
    fn start(authority: &Authority, control_plane: SocketAddr, run_dir: &Path) -> Self {
        let (address, run_dir) = (control_plane.to_string(), run_dir.display().to_string());
        let get = |name: &str| {
            let value = match name {
                "POD_NAME" => "cart-1",
                "POD_NAMESPACE" => "shop",
                "POD_IP" => "10.1.2.3",
                "SERVICE_ACCOUNT" => "cart",
                "MESHWRIGHT_DISCOVERY_ADDRESS" => &address,
                "MESHWRIGHT_RUN_DIR" => &run_dir,
                "MESHWRIGHT_DNS_CAPTURE" | "MESHWRIGHT_WATCH_COMPLETION" => "true",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let settings = Arc::new(Settings::from_env(get).unwrap());
        let roots = Some(authority.root_pem().into());
        let secrets = watch::Sender::new(Secrets { certificate: Some(issued(authority)), roots });
        let learned = Learned::new(&settings);
        let (hosts, finished) = (learned.hosts.subscribe(), learned.finished.subscribe());
        let task = tokio::spawn(mesh::keep(settings, secrets.subscribe(), learned));
        Self { secrets, hosts, finished, task }
    }

    /// Returns when the agent knows what it should.
    async fn knows(&mut self, what: impl FnMut(&Table) -> bool) {
        let known = tokio::time::timeout(SOON, self.hosts.wait_for(what)).await;
        drop(known.expect("the agent does not learn it").unwrap());
    }
}

/// An agent that knows what `world` says about the cart.
async fn connected(authority: &Authority, world: &World, run_dir: &Path) -> (Server, Agent) {
    world.put(HOST_TYPE_URL, CART, &host(1));
    let server = control_plane::start(authority, world.clone(), 0).await;
    let mut agent = Agent::start(authority, server.address, run_dir);
    agent.knows(|table| table.exact(CART).is_some()).await;
    (server, agent)
}

/// Waits for something that only polling tells.
async fn eventually(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it does not happen");
}

#[tokio::test]
async fn learns_hosts_as_they_come_and_go() {
    let (authority, world) = (authority(), World::new());
    let directory = tempfile::tempdir().unwrap();
    let (_server, mut agent) = connected(&authority, &world, directory.path()).await;

    let first = &world.opened()[0];
    assert_eq!(first.identity, "spiffe://cluster.local/ns/shop/sa/cart");
    let node = first.request.node.as_ref().unwrap();
    assert_eq!(node.id, "sidecar~10.1.2.3~cart-1.shop~shop.svc.cluster.local");
    assert!(node.metadata.as_ref().unwrap().fields.contains_key("AGENT"));

    world.put(HOST_TYPE_URL, CART, &host(2));
    agent.knows(|table| table.exact(CART).unwrap().addresses[0].to_string() == "10.96.0.2").await;
    world.put(
        HOST_TYPE_URL,
        "broken.example.com",
        &Host { addresses: vec![vec![1].into()], ..Host::default() },
    );
    let refused = || {
        let heard = world.heard.lock().unwrap();
        heard.iter().any(|heard| {
            let error = heard.request.error_detail.as_ref();
            error.is_some_and(|error| error.message.contains("broken.example.com"))
        })
    };
    eventually(refused).await;
    world.remove(HOST_TYPE_URL, CART);
    agent.knows(Table::is_empty).await;
    agent.task.abort();
}

#[tokio::test]
async fn keeps_what_it_knows_while_the_control_plane_is_away_and_asks_for_the_rest() {
    let (authority, world) = (authority(), World::new());
    let directory = tempfile::tempdir().unwrap();
    let (server, mut agent) = connected(&authority, &world, directory.path()).await;
    let address = server.address;
    server.stop().await;
    world.put(HOST_TYPE_URL, "api.example.com", &host(9));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(agent.hosts.borrow().len(), 1, "it stays");

    let server = control_plane::start(&authority, world.clone(), address.port()).await;
    agent.knows(|table| table.len() == 2).await;
    let hosts = world.opened().into_iter().rfind(|h| h.request.type_url == HOST_TYPE_URL).unwrap();
    assert_eq!(hosts.request.initial_resource_versions.get(CART).map(String::as_str), Some("1"));

    // The next run of the agent knows it before the control plane says a word.
    let path = directory.path().join("hosts");
    eventually(|| file::read(&path).len() == 2).await;
    agent.task.abort();
    server.stop().await;
    let restarted = Agent::start(&authority, address, directory.path());
    assert_eq!(restarted.hosts.borrow().len(), 2);
    restarted.task.abort();
}

#[tokio::test]
async fn goes_on_with_a_renewed_certificate() {
    let (authority, world) = (authority(), World::new());
    let directory = tempfile::tempdir().unwrap();
    let (_server, mut agent) = connected(&authority, &world, directory.path()).await;
    let before = world.opened().len();
    agent.secrets.send_modify(|secrets| secrets.certificate = Some(issued(&authority)));
    eventually(|| world.opened().len() > before).await;
    world.put(HOST_TYPE_URL, CART, &host(7));
    agent.knows(|table| table.exact(CART).unwrap().addresses[0].to_string() == "10.96.0.7").await;
    agent.task.abort();
}

#[tokio::test]
async fn hears_that_the_applications_have_finished() {
    let (authority, world) = (authority(), World::new());
    world.put(POD_TYPE_URL, "shop/cart-1", &Pod { applications_finished: false });
    let server = control_plane::start(&authority, world.clone(), 0).await;
    let directory = tempfile::tempdir().unwrap();
    let mut agent = Agent::start(&authority, server.address, directory.path());
    eventually(|| world.heard.lock().unwrap().iter().any(|h| !h.request.response_nonce.is_empty()))
        .await;
    assert!(!*agent.finished.borrow());
    world.put(POD_TYPE_URL, "shop/cart-1", &Pod { applications_finished: true });
    let finished = tokio::time::timeout(SOON, agent.finished.wait_for(|finished| *finished)).await;
    assert!(finished.is_ok());
    agent.task.abort();
}
