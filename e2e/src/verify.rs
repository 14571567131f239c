//! `cargo verify`: every test there is, cheapest first, and one line of totals at the end.

mod calibrate;
mod cargo;
mod chart;
mod scenes;
mod totals;

use std::{process::ExitCode, thread};

use anyhow::Result;

use self::totals::Totals;
use crate::{
    args::{Layer, VerifyArgs},
    cache::Cache,
    preflight, scenarios,
    steps::{Steps, print, print_error},
    tools::{self, Tool},
};

/// What runs where nothing is named.
const ALL: [Layer; 7] = [
    Layer::Fmt,
    Layer::Clippy,
    Layer::Unit,
    Layer::Envoy,
    Layer::Netns,
    Layer::Chart,
    Layer::Cluster,
];

pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    preflight::platform()?;
    let cache = Cache::open()?;
    let mut layers = if args.layers.is_empty() { ALL.to_vec() } else { args.layers.clone() };
    layers.sort_unstable();
    layers.dedup();
    let mut steps = Steps::new();
    let mut totals = Totals::default();
    let run = calibrate::fitting(&cache, &layers, &mut steps, &mut totals)?;
    if run.iter().any(|layer| needs_root(*layer)) && preflight::is_root()? {
        steps.run("packages of the distribution are there", || tools::system_packages(&cache))?;
    }
    let background = install_meanwhile(&cache, &run);
    for layer in run {
        if let Err(error) = one(layer, args, &cache, &mut steps, &mut totals) {
            print_error(&error);
            totals.failed(layer_name(layer));
        }
    }
    drop(background);
    totals.report(&steps);
    Ok(if totals.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(
    layer: Layer,
    args: &VerifyArgs,
    cache: &Cache,
    steps: &mut Steps,
    totals: &mut Totals,
) -> Result<()> {
    if needs_root(layer) {
        preflight::check(cache)?;
    }
    match layer {
        Layer::Fmt => {
            cargo::check(
                cache,
                steps,
                totals,
                "fmt",
                &["fmt", "--all", "--check", "--", "--color=never"],
            );
            Ok(())
        }
        Layer::Clippy => {
            let flags = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
            cargo::check(cache, steps, totals, "clippy", &flags);
            Ok(())
        }
        Layer::Deny => cargo::deny(cache, steps, totals),
        Layer::Unit => cargo::unit(cache, steps, totals),
        Layer::Envoy => cargo::with_envoy(cache, steps, totals, "envoy"),
        Layer::Netns => cargo::with_envoy(cache, steps, totals, "netns"),
        Layer::Chart => chart::check(cache, steps, totals),
        Layer::Cluster => scenes::run(args, cache, scenarios::all(), steps, totals),
        Layer::Fuzz => cargo::fuzz(cache, steps, totals),
        Layer::Measure => scenes::run(args, cache, scenarios::measurements(), steps, totals),
    }
}

fn needs_root(layer: Layer) -> bool {
    matches!(layer, Layer::Netns | Layer::Cluster | Layer::Measure)
}

/// Tools are installed while the first layers run. Each layer asks again for what it needs, and so
/// waits for it, or gets to know why it is not there.
fn install_meanwhile(cache: &Cache, layers: &[Layer]) -> Option<thread::JoinHandle<()>> {
    let mut wanted = Vec::new();
    if layers.iter().any(|layer| matches!(layer, Layer::Envoy | Layer::Netns)) {
        wanted.push(Tool::Envoy);
    }
    if layers.contains(&Layer::Chart) {
        wanted.extend([Tool::Helm, Tool::Kubeconform, Tool::Checkov]);
    }
    if layers.iter().any(|layer| matches!(layer, Layer::Cluster | Layer::Measure)) {
        wanted.extend(
            Tool::CLUSTER.iter().filter(|tool| !wanted.contains(tool)).copied().collect::<Vec<_>>(),
        );
    }
    let cache = cache.clone();
    (!wanted.is_empty()).then(|| {
        thread::spawn(move || {
            if let Err(error) = tools::install(&cache, &wanted) {
                print(&format!("        a tool was not installed at the first attempt: {error:#}"));
            }
        })
    })
}

fn layer_name(layer: Layer) -> &'static str {
    match layer {
        Layer::Fmt => "fmt",
        Layer::Clippy => "clippy",
        Layer::Deny => "deny",
        Layer::Unit => "unit",
        Layer::Envoy => "envoy",
        Layer::Netns => "netns",
        Layer::Chart => "chart",
        Layer::Cluster => "cluster",
        Layer::Measure => "measure",
        Layer::Fuzz => "fuzz",
    }
}
