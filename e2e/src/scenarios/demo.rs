//! The demo: a shop of five services, and what a mesh does for it.

mod graph;
mod shop;

use anyhow::{Context, Result, ensure};

use self::shop::{HOST, OUTSIDE, SHOP};
use super::{
    balancing,
    client::{Client, Outcome, PROPAGATION, Summary},
    gateway, manifest,
};
use crate::{
    cluster::{Cluster, wait_for},
    steps::Steps,
};

/// Shows the mesh at work.
pub fn demo(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    steps.run("sample application: front, catalog v1 and v2, cart, stock, db", || {
        shop::deploy(cluster)
    })?;
    let entrance = steps.run("gateway and route to the front", || Entrance::open(cluster))?;
    let summary = steps.run("requests through the gateway", || entrance.visit())?;
    steps.say(&format!(
        "        {} requests by way of {}, none failed, 99 % within {:.0} ms",
        summary.requests(),
        entrance.way(),
        summary.p99()
    ));
    let summary =
        steps.run("90 % of the catalog's requests to v1, 10 % to v2", || split(cluster))?;
    for (version, count) in summary.versions() {
        let (share, of) = (summary.percent(&version), summary.requests());
        steps.say(&format!("        {version:<12} {count:>5} of {of} requests, {share:.1} %"));
    }
    peer_authentication(cluster, steps)?;
    let graph = steps.run("who calls whom", || graph::read(cluster))?;
    for line in graph::table(&graph) {
        steps.say(&format!("        {line}"));
    }
    Ok(())
}

/// Where the world comes in.
struct Entrance<'a> {
    client: Client<'a>,
    address: String,
}

impl<'a> Entrance<'a> {
    /// Exposes the front and waits until it answers. Where this machine cannot reach the gateway,
    /// as with somebody's own cluster behind a cloud, a pod outside the mesh stands in for it.
    fn open(cluster: &'a Cluster) -> Result<Self> {
        manifest::apply(cluster, &shop::entrance())?;
        let inside =
            Self { client: shop::stranger(cluster), address: shop::GATEWAY_NAME.to_owned() };
        let entrance = match gateway::address(cluster) {
            Ok(address) => {
                let outside = Self { client: Client::machine(cluster), address };
                if outside.is_reached() { outside } else { inside }
            }
            Err(_) => inside,
        };
        entrance.client.until(
            "the front through the gateway",
            &entrance.url(),
            &["--host", HOST],
            |outcome| outcome.ok() && outcome.field("service") == "front",
        )?;
        Ok(entrance)
    }

    /// Whether a connection can be made at all, whatever is answered.
    fn is_reached(&self) -> bool {
        let options = ["--host", HOST, "--timeout", "5s"];
        let reached = |outcome: Outcome| (outcome.status() != "error").then_some(());
        wait_for("the gateway", PROPAGATION, || {
            Ok(reached(self.client.call(&self.url(), &options)?))
        })
        .is_ok()
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn way(&self) -> String {
        format!("http://{} (Host: {HOST})", self.address)
    }

    /// Every request goes through the whole shop.
    fn visit(&self) -> Result<Summary> {
        let options = ["--host", HOST, "--count", "100", "--concurrency", "4"];
        self.client.run(&self.url(), &options)?.without_failures()
    }
}

fn split(cluster: &Cluster) -> Result<Summary> {
    let rule = manifest::destination_rule(SHOP, "catalog", &["v1", "v2"]);
    manifest::apply(cluster, &[rule, balancing::weighted(SHOP, "catalog", 90, 10)])?;
    let front = Client::pod(cluster, SHOP, "deploy/front");
    let options = |count| ["--count", count, "--concurrency", "8"];
    wait_for("the split in force", PROPAGATION, || {
        let summary = front.run(shop::CATALOG_ITEM, &options("100"))?;
        Ok((summary.percent("catalog/v1") > 70.0).then_some(()))
    })?;
    let summary = front.run(shop::CATALOG_ITEM, &options("1000"))?;
    balancing::within_three_points(summary, "catalog/v1", 90.0)
}

/// A pod outside the mesh is refused under STRICT and gets through under PERMISSIVE.
fn peer_authentication(cluster: &Cluster, steps: &mut Steps) -> Result<()> {
    let url = format!("http://front.{SHOP}/hello");
    let set = |mode: &str, what: &str, accept: fn(&Outcome) -> bool| {
        manifest::apply(cluster, &[manifest::peer_authentication(SHOP, mode)])?;
        let stranger = shop::stranger(cluster);
        stranger.until(what, &url, &["--timeout", "5s", "--fresh"], accept)
    };
    let refused = steps.run("STRICT: a pod outside the mesh is refused", || {
        let refused = set("STRICT", "refused", |outcome| !outcome.ok())?;
        let front = Client::pod(cluster, SHOP, "deploy/front");
        let inside = front.call(shop::CATALOG_ITEM, &[])?.answered();
        inside.context("a pod in the mesh is refused too")?;
        Ok(refused)
    })?;
    steps.say(&format!("        {url} from {OUTSIDE}: {}", refused.error()));
    let through = steps.run("PERMISSIVE: the same pod gets through", || {
        set("PERMISSIVE", "gets through", Outcome::ok)
    })?;
    steps.say(&format!("        {url} from {OUTSIDE}: {through}"));
    ensure!(through.caller_certificate().is_none(), "a certificate from outside the mesh");
    Ok(())
}
