//! Every protocol, declared in every way, between pods in the mesh and pods that are not.
//!
//! Mutual TLS is proven from the caller's certificate: over HTTP the server's proxy writes what it
//! saw into a header, over TCP it counts connections by it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{
    client::{Client, Outcome, PROPAGATION},
    collector::Collector,
    manifest, metrics,
    testbed::{self, Declaration, MESHED, PLAIN, WIRES, Wire},
};
use crate::cluster::{Cluster, wait_for};

/// Requests for each case: more than one, so that kept connections are used too.
const REPEAT: &[&str] = &["--count", "3"];

/// Nothing said: everybody may call everybody, in mutual TLS where both can.
pub fn permissive(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    testbed::delete(cluster, MESHED, "peerauthentication", "default")?;
    let (meshed, plain) = (testbed::meshed_client(cluster), testbed::plain_client(cluster));
    plain.until("plaintext into the mesh", &first_url(), &[], Outcome::ok)?;
    let mut collector = Collector::default();
    mutual_tls_between_meshed(cluster, &mut collector)?;
    each_case(&mut collector, "meshed to plain", PLAIN, |wire, url| {
        answered_in_plaintext(meshed, wire, url)
    });
    each_case(&mut collector, "plain to meshed", MESHED, |wire, url| {
        answered_in_plaintext(plain, wire, url)
    });
    stream(&mut collector, meshed);
    collector.verdict()
}

/// STRICT: nobody without a certificate gets through.
pub fn strict(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    require(cluster, "STRICT")?;
    let plain = testbed::plain_client(cluster);
    let mut collector = Collector::default();
    mutual_tls_between_meshed(cluster, &mut collector)?;
    each_case(&mut collector, "plain to meshed", MESHED, |_, url| {
        let outcome = plain.call(url, &["--timeout", "5s"])?;
        ensure!(!outcome.ok(), "got through under STRICT");
        Ok(())
    });
    collector.verdict()?;
    require(cluster, "PERMISSIVE")?;
    testbed::delete(cluster, MESHED, "peerauthentication", "default")
}

/// Changes what the testbed's pods accept and waits until it is in force.
fn require(cluster: &Cluster, mode: &str) -> Result<()> {
    manifest::apply(cluster, &[manifest::peer_authentication(MESHED, mode)])?;
    let (plain, refused) = (testbed::plain_client(cluster), mode == "STRICT");
    wait_for(&format!("PeerAuthentication {mode} in force"), PROPAGATION, || {
        let outcome = plain.call(&first_url(), &["--timeout", "5s"])?;
        Ok((outcome.ok() != refused).then_some(()))
    })
}

fn first_url() -> String {
    testbed::url(&WIRES[0], Declaration::PortName, MESHED)
}

fn each_case(
    collector: &mut Collector,
    what: &str,
    server: &str,
    check: impl Fn(&Wire, &str) -> Result<()>,
) {
    for declaration in Declaration::ALL {
        for wire in &WIRES {
            let url = testbed::url(wire, declaration, server);
            collector.case(&format!("{what}, {url}"), || check(wire, &url));
        }
    }
}

fn mutual_tls_between_meshed(cluster: &Cluster, collector: &mut Collector) -> Result<()> {
    let client = testbed::meshed_client(cluster);
    let server_ip = testbed::pod_ip(cluster, MESHED, "server")?;
    each_case(collector, "meshed to meshed", MESHED, |wire, url| {
        if wire.http {
            proven_by_header(client, url)
        } else {
            proven_by_count(cluster, client, url, &server_ip)
        }
    });
    Ok(())
}

/// The server shows the identity that its proxy took from the caller's certificate.
fn proven_by_header(client: Client<'_>, url: &str) -> Result<()> {
    client.run(url, REPEAT)?.without_failures()?;
    let outcome = client.call(url, &[])?.answered()?;
    let caller = format!("URI={}", testbed::principal("client"));
    let shown = outcome.caller_certificate().unwrap_or("nothing");
    ensure!(
        shown.split([';', ',']).any(|part| part == caller),
        "the server's proxy saw {shown}, not {caller}"
    );
    Ok(())
}

/// The server's proxy counts one more connection that the caller's certificate came with.
fn proven_by_count(
    cluster: &Cluster,
    client: Client<'_>,
    url: &str,
    server_ip: &str,
) -> Result<()> {
    let caller = testbed::principal("client");
    let labels = [
        ("reporter", "destination"),
        ("source_principal", &*caller),
        ("connection_security_policy", "mutual_tls"),
    ];
    let count = || {
        let samples = metrics::scrape(Client::machine(cluster), server_ip)?;
        anyhow::Ok(metrics::sum(&samples, "istio_tcp_connections_opened_total", &labels))
    };
    let before = count()?;
    client.run(url, REPEAT)?.without_failures()?;
    wait_for("a connection with the caller's certificate", Duration::from_secs(15), || {
        Ok((count()? > before).then_some(()))
    })
}

fn answered_in_plaintext(client: Client<'_>, wire: &Wire, url: &str) -> Result<()> {
    client.run(url, REPEAT)?.without_failures()?;
    if wire.http {
        let outcome = client.call(url, &[])?.answered()?;
        let shown = outcome.caller_certificate();
        ensure!(shown.is_none(), "plaintext, and yet the server saw a certificate: {shown:?}");
    }
    Ok(())
}

/// A gRPC conversation: no proxy on the way may wait for the end of a stream.
fn stream(collector: &mut Collector, client: Client<'_>) {
    for namespace in [MESHED, PLAIN] {
        for declaration in Declaration::ALL {
            let url = format!("grpc-stream://{}.{namespace}:50051", declaration.service());
            collector.case(&url, || client.run(&url, REPEAT)?.without_failures().map(drop));
        }
    }
}
