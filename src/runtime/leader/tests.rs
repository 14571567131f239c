//! Elections between candidates that share an API server in memory, on a clock that does not wait.

use std::sync::{
    Mutex,
    atomic::{AtomicU8, Ordering},
};

use http::{Method, Request, Response, StatusCode};
use kube::client::Body;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/system/leases/role";

/// What one candidate's calls come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Line {
    Good,
    /// The server says that it cannot.
    Failing,
    /// No answer ever comes, and nothing is done.
    Dead,
    /// It is done, but the answer is lost.
    Deaf,
}

const LINES: [Line; 4] = [Line::Good, Line::Failing, Line::Dead, Line::Deaf];

/// The lease, and every write of anything else.
#[derive(Default)]
struct Server {
    lease: Option<Value>,
    version: u64,
    writes: Vec<String>,
}

/// What clients go by.
fn reason(code: StatusCode) -> &'static str {
    if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" }
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let failure = |code: StatusCode| {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "refused", "reason": reason(code), "code": code.as_u16(),
            });
            (code, status)
        };
        if !PATH.starts_with(path) {
            self.writes.push(format!("{method} {path}"));
            return (StatusCode::OK, json!({}));
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => (StatusCode::OK, lease.clone()),
            (&Method::GET | &Method::PUT, None) => failure(StatusCode::NOT_FOUND),
            (&Method::POST, Some(_)) => failure(StatusCode::CONFLICT),
            (&Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] =>
            {
                failure(StatusCode::CONFLICT)
            }
            _ => (StatusCode::OK, self.store(sent)),
        }
    }

    fn store(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(lease.clone());
        lease
    }
}

/// A candidate with a line of its own to the server.
struct Replica {
    election: LeaderElection,
    fence: Fence,
    client: Client,
    line: Arc<AtomicU8>,
}

impl Replica {
    fn start(server: &Arc<Mutex<Server>>, name: &str) -> Self {
        let line = Arc::new(AtomicU8::new(Line::Good as u8));
        let client = client(server.clone(), line.clone());
        let election = LeaderElection::start(client.clone(), "system", "role", name);
        Self { fence: election.fence(), election, client, line }
    }

    fn is(&self, line: Line) {
        self.line.store(line as u8, Ordering::Relaxed);
    }

    fn leads(&self) -> bool {
        *self.election.subscribe().borrow()
    }

    async fn until(&self, leads: bool) -> Duration {
        let began = Instant::now();
        let mut leading = self.election.subscribe();
        let change = leading.wait_for(|now| *now == leads);
        drop(timeout(Duration::from_mins(5), change).await.expect("it never comes").unwrap());
        began.elapsed()
    }

    /// The process is gone: nothing is released.
    fn kill(&self) {
        self.election.task.abort();
    }
}

fn client(server: Arc<Mutex<Server>>, line: Arc<AtomicU8>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (server, line) = (server.clone(), LINES[usize::from(line.load(Ordering::Relaxed))]);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let (status, answer) = match line {
                Line::Failing => (StatusCode::INTERNAL_SERVER_ERROR, json!("down")),
                Line::Dead => std::future::pending().await,
                Line::Good | Line::Deaf => {
                    server.lock().unwrap().answer(&head.method, head.uri.path(), &body)
                }
            };
            if line == Line::Deaf {
                std::future::pending::<()>().await;
            }
            let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
            *response.status_mut() = status;
            Ok::<_, tower::BoxError>(response)
        }
    });
    Client::new(service, "default")
}

/// Two candidates, of which the first leads.
async fn two() -> (Arc<Mutex<Server>>, Replica, Replica) {
    let server = Arc::new(Mutex::new(Server::default()));
    let first = Replica::start(&server, "first");
    first.until(true).await;
    let second = Replica::start(&server, "second");
    tokio::time::sleep(LEASE_DURATION * 3).await;
    assert!(first.leads() && !second.leads(), "a leader that renews stays");
    (server, first, second)
}

fn held_by(holder: Option<&str>) -> LeaseSpec {
    LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: Some(15),
        ..LeaseSpec::default()
    }
}

#[test]
fn decides_by_holder_and_age() {
    let (young, old) = (Duration::from_secs(3), Duration::from_secs(15));
    let cases = [
        ("no lease", None, young, Decision::Acquire),
        ("released", Some(held_by(None)), young, Decision::Acquire),
        ("released by an empty name", Some(held_by(Some(""))), young, Decision::Acquire),
        ("ours", Some(held_by(Some("me"))), old, Decision::Renew),
        ("another's, alive", Some(held_by(Some("you"))), young, Decision::Wait),
        ("another's, silent", Some(held_by(Some("you"))), old, Decision::Acquire),
    ];
    for (name, lease, age, want) in cases {
        assert_eq!(decide(lease.as_ref(), "me", age), want, "{name}");
    }
}

#[test]
fn a_lease_without_a_duration_does_not_flap() {
    let spec = LeaseSpec { lease_duration_seconds: None, ..held_by(Some("you")) };
    assert_eq!(decide(Some(&spec), "me", Duration::ZERO), Decision::Wait);
}

/// The clock of these tests is simulated: what is asserted is the protocol, not the machine.
#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced_within_15_seconds() {
    let (_, first, second) = two().await;
    first.kill();
    assert!(second.until(true).await < Duration::from_secs(13), "and 2 s for the controllers");
    assert_eq!(first.fence.check(), Err(Deposed), "the dead one's time is over before");
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_at_the_next_look() {
    let (_, first, second) = two().await;
    let fence = first.fence.clone();
    first.election.release().await;
    assert_eq!(fence.check(), Err(Deposed));
    assert!(second.until(true).await <= RETRY_INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_changes_nothing() {
    for line in [Line::Failing, Line::Dead, Line::Deaf] {
        let (_, first, second) = two().await;
        first.is(line);
        tokio::time::sleep(RENEW_INTERVAL).await;
        first.is(Line::Good);
        tokio::time::sleep(LEASE_DURATION).await;
        assert!(first.leads() && !second.leads(), "{line:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_stops_before_another_starts() {
    for line in [Line::Failing, Line::Dead] {
        let (_, first, second) = two().await;
        first.is(line);
        assert!(first.until(false).await < LEASE_DURATION, "{line:?}");
        assert!(!second.leads(), "{line:?}");
        second.until(true).await;
        first.is(Line::Good);
        tokio::time::sleep(LEASE_DURATION).await;
        assert!(!first.leads() && second.leads(), "{line:?}: the old one does not take it back");
    }
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_lease_taken_leads_no_more() {
    let (server, first, _second) = two().await;
    {
        let mut server = server.lock().unwrap();
        let mut lease = server.lease.clone().unwrap();
        lease["spec"]["holderIdentity"] = json!("third");
        server.store(lease);
    }
    assert!(first.until(false).await <= RENEW_INTERVAL);
    assert_eq!(first.fence.check(), Err(Deposed));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_touches_or_deletes_stays_with_its_holder() {
    let (server, first, second) = two().await;
    {
        let mut server = server.lock().unwrap();
        let mut lease = server.lease.clone().unwrap();
        lease["metadata"]["labels"] = json!({"touched": "yes"});
        server.store(lease);
    }
    tokio::time::sleep(LEASE_DURATION * 2).await;
    assert!(first.leads() && !second.leads());
    let lease = server.lock().unwrap().lease.clone().unwrap();
    assert_eq!(lease["metadata"]["labels"]["touched"], "yes", "and what they wrote is kept");
    // Whoever is first makes it anew; there is one leader then too.
    server.lock().unwrap().lease = None;
    tokio::time::sleep(LEASE_DURATION * 2).await;
    assert!(first.leads() != second.leads());
}

/// Times in the lease are for people: one that lies in the future or the past decides nothing.
#[tokio::test(start_paused = true)]
async fn clocks_need_not_agree() {
    for time in ["2001-01-01T00:00:00.000000Z", "2199-01-01T00:00:00.000000Z"] {
        let server = Arc::new(Mutex::new(Server::default()));
        let spec = json!({"holderIdentity": "gone", "leaseDurationSeconds": 10, "renewTime": time, "acquireTime": time});
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "role", "namespace": "system"}, "spec": spec,
        });
        server.lock().unwrap().store(lease);
        let replica = Replica::start(&server, "late");
        let waited = replica.until(true).await;
        assert!(waited >= LEASE_DURATION && waited <= LEASE_DURATION + RETRY_INTERVAL, "{time}");
    }
}

async fn write(client: &Client) -> Result<(), kube::Error> {
    let request = Request::put("/api/v1/namespaces/x/configmaps/y").body(Vec::new()).unwrap();
    client.request::<Value>(request).await.map(drop)
}

async fn read(client: &Client) -> Result<(), kube::Error> {
    let request = Request::get("/api/v1/namespaces/x/configmaps/y").body(Vec::new()).unwrap();
    client.request::<Value>(request).await.map(drop)
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_reads_but_does_not_write() {
    let (server, first, second) = two().await;
    let fenced = first.fence.client(&first.client);
    write(&fenced).await.unwrap();
    first.election.office.leave();
    let refused = write(&fenced).await.unwrap_err();
    assert!(refused.to_string().contains("does not lead any more"), "{refused}");
    read(&fenced).await.unwrap();
    assert!(write(&second.fence.client(&second.client)).await.is_err(), "a follower neither");
    write(&Fence::open().client(&second.client)).await.unwrap();
    let puts = |server: &Server| server.writes.iter().filter(|w| w.starts_with("PUT")).count();
    assert_eq!(puts(&server.lock().unwrap()), 2, "what was refused was not sent");
}

/// A process that was frozen finds its writes refused, though nobody could tell it.
#[tokio::test(start_paused = true)]
async fn a_frozen_leader_wakes_up_deposed() {
    let (_, first, _second) = two().await;
    let fenced = first.fence.client(&first.client);
    first.kill();
    tokio::time::sleep(RENEW_DEADLINE).await;
    assert!(first.leads(), "nobody told it");
    assert!(write(&fenced).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_began_in_one_term_does_not_go_on_in_the_next() {
    let (_, first, second) = two().await;
    let fence = first.fence.of_this_term();
    first.is(Line::Failing);
    first.until(false).await;
    second.until(true).await;
    first.is(Line::Good);
    second.kill();
    first.until(true).await;
    assert_eq!(first.fence.check(), Ok(()));
    assert_eq!(fence.check(), Err(Deposed));
}

fn schedule() -> impl Strategy<Value = Vec<(usize, usize, u64)>> {
    prop::collection::vec((0..3_usize, 0..LINES.len(), 100..9_000_u64), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to whose line: no two may write at once, and in the end somebody leads.
    #[test]
    fn never_two_leaders(schedule in schedule()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let server = Arc::new(Mutex::new(Server::default()));
            let replicas = ["a", "b", "c"].map(|name| Replica::start(&server, name));
            let writers = || replicas.iter().filter(|r| r.fence.check().is_ok()).count();
            for (replica, line, milliseconds) in schedule {
                replicas[replica].is(LINES[line]);
                for _ in 0..milliseconds / 100 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    assert!(writers() <= 1, "{} may write", writers());
                }
            }
            for replica in &replicas {
                replica.is(Line::Good);
            }
            tokio::time::sleep(LEASE_DURATION * 3).await;
            assert_eq!(writers(), 1);
        });
    }
}
