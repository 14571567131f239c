//! What it costs to reconcile an installation that is as it should be.
//!
//! `cargo bench --bench operator` lets the operator install into an API server in memory, makes
//! everything available, and then reconciles the unchanged installation again and again. The CPU time
//! is that of the thread that reconciles; the API server answers on another.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "the result")]

#[path = "../../tests/operator/api_server.rs"]
mod api_server;
#[path = "../../tests/operator/fixture.rs"]
mod fixture;

use std::{fs, time::Instant};

use clap::Parser;
use fixture::Fixture;
use serde_json::json;

/// Measures the reconciliation of an unchanged installation.
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of gateways, each measured by itself
    #[arg(long, value_delimiter = ',', default_value = "0,1,8,64")]
    gateways: Vec<usize>,
    /// Reconciliations to measure
    #[arg(long, default_value_t = 50)]
    rounds: u32,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    meshwright::runtime::install_crypto_provider();
    let args = Args::parse();
    println!("gateways  objects  calls  CPU ms  wall ms");
    for gateways in args.gateways {
        measure(gateways, args.rounds.max(1));
    }
}

fn measure(gateways: usize, rounds: u32) {
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let here = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listed: Vec<_> = (0..gateways).map(|n| json!({"name": format!("edge-{n}")})).collect();
    let spec = json!({"profile": "ha", "gateways": listed});
    // The server's task and the client's queue run over there.
    let mesh = server.block_on(async { Fixture::new(&spec) });
    here.block_on(async {
        for _ in 0..2 {
            assert_eq!(mesh.run().await.0, None);
            mesh.make_available();
        }
        mesh.run().await;
        mesh.state().calls.clear();
        let (cpu, wall) = (cpu_nanoseconds(), Instant::now());
        for _ in 0..rounds {
            assert_eq!(mesh.run().await, (None, Vec::new()), "it is not settled");
        }
        let each = |nanoseconds: f64| nanoseconds / f64::from(rounds) / 1e6;
        let (cpu, wall) = (cpu_nanoseconds() - cpu, wall.elapsed().as_secs_f64() * 1e9);
        let state = mesh.state();
        println!(
            "{gateways:8}  {:7}  {:5}  {:6.2}  {:7.2}",
            state.objects.len(),
            state.calls.len() / rounds as usize,
            each(cpu),
            each(wall),
        );
    });
}

/// What this thread has used so far.
fn cpu_nanoseconds() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}
