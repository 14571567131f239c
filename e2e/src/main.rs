//! `cargo demo` and `cargo verify`: boots a throwaway Kubernetes in a network namespace of its own,
//! shows Meshwright in it, tests it in it, and takes it away again without a trace.
//!
//! - [`tools`] installs what is missing into a cache folder; [`cluster`] boots and ends a node from it
//! - [`images`] packs binaries into container images without an image builder; [`deploy`] installs
//!   the chart
//! - [`demo`], [`reload`] and [`verify`] are the commands; [`existing`] is the demo on another cluster
//! - [`scenarios`] is what is shown and tested, in terms of [`cluster::Cluster`] alone

mod args;
mod cache;
mod cluster;
mod demo;
mod deploy;
mod existing;
mod images;
mod interrupt;
mod lock;
mod preflight;
mod process;
mod reload;
mod scenarios;
mod steps;
mod tools;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    let args = Args::parse_from(args::without_separator(std::env::args()));
    let result = interrupt::install().and_then(|()| match args.command {
        Command::Demo(demo) => demo::run(&demo).map(|()| ExitCode::SUCCESS),
        Command::Verify(verify) => verify::run(&verify),
        Command::Loadbalancer(balancer) => {
            cluster::loadbalancer::serve(&balancer.kubectl, &balancer.range)
                .map(|()| ExitCode::SUCCESS)
        }
    });
    // An interrupt kills the children of whatever step is running; its error is not the story.
    interrupt::checkpoint();
    result.unwrap_or_else(|error| {
        steps::print_error(&error);
        ExitCode::FAILURE
    })
}
