//! The command line of both commands.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "meshwright-e2e", about, disable_help_subcommand = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Boots a Kubernetes of its own, installs the mesh in it and shows traffic. Leaves it running.
    #[command(name = "demo", bin_name = "cargo demo --")]
    Demo(DemoArgs),
    /// Runs every test there is, or the named parts.
    #[command(name = "verify", bin_name = "cargo verify --")]
    Verify(VerifyArgs),
    /// Gives Services of type LoadBalancer an address. A part of the cluster, started by the demo.
    #[command(hide = true)]
    Loadbalancer(LoadbalancerArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// What to do: nothing named shows everything.
    #[arg(value_enum)]
    pub action: Option<DemoAction>,
    /// Name of the throwaway cluster. Clusters of different names run side by side.
    #[arg(long, default_value = "demo", value_parser = cluster_name)]
    pub name: String,
    /// Use this cluster instead of a throwaway one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Registry that holds the images, for --kubeconfig; kind and k3d clusters need none.
    #[arg(long, value_name = "REGISTRY", requires = "kubeconfig")]
    pub registry: Option<String>,
    /// Tag of the images in that registry.
    #[arg(long, value_name = "TAG", requires = "registry", default_value = "latest")]
    pub tag: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoAction {
    /// Takes the cluster away: processes, namespaces, mounts, cgroups and state.
    Down,
    /// Rebuilds, re-imports and restarts what changed.
    Reload,
}

#[derive(Debug, Clone, clap::Args)]
pub struct VerifyArgs {
    /// Parts to run; all but deny and measure where none is named.
    #[arg(value_enum)]
    pub layers: Vec<Layer>,
    /// Run only the cluster scenarios whose name contains this, or one of these, with commas.
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Leave the cluster up after the scenarios, to look at it.
    #[arg(long)]
    pub keep: bool,
}

/// A part of `cargo verify`, cheapest first: what fails early fails fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Layer {
    /// cargo fmt
    Fmt,
    /// cargo clippy, warnings are errors
    Clippy,
    /// Licences, bans and sources of dependencies, with cargo-deny
    Deny,
    /// Unit, golden and property tests
    Unit,
    /// Real Envoy accepts what is generated
    Envoy,
    /// Redirection and real Envoys in network namespaces
    Netns,
    /// The Helm chart
    Chart,
    /// Scenarios in a real Kubernetes
    Cluster,
    /// What is measured in one and not judged
    Measure,
    /// Hostile reviews for ten minutes, and property tests with other inputs each time
    Fuzz,
}

#[derive(Debug, Clone, clap::Args)]
pub struct LoadbalancerArgs {
    /// A kubectl wrapper that takes plain kubectl arguments.
    #[arg(long)]
    pub kubectl: PathBuf,
    /// First three octets of the addresses to hand out.
    #[arg(long)]
    pub range: String,
}

/// The aliases end in the subcommand, so `cargo demo -- down` arrives as `demo -- down`.
pub fn without_separator(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut args: Vec<String> = args.collect();
    if args.get(2).is_some_and(|argument| argument == "--") {
        args.remove(2);
    }
    args
}

/// The name becomes part of a network namespace, a cgroup and paths of sockets.
fn cluster_name(name: &str) -> Result<String, String> {
    let fits = !name.is_empty() && name.len() <= 20;
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if fits && plain && !name.starts_with('-') {
        Ok(name.to_owned())
    } else {
        Err("use 1 to 20 lower-case letters, digits and dashes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(without_separator(line.split(' ').map(str::to_owned)))
    }

    #[test]
    fn the_separator_of_the_alias_is_dropped() {
        let Command::Demo(demo) = parse("e2e demo -- down --name other").unwrap().command else {
            panic!("not the demo")
        };
        assert_eq!((demo.action, demo.name.as_str()), (Some(DemoAction::Down), "other"));
    }

    #[test]
    fn layers_are_named() {
        let Command::Verify(verify) = parse("e2e verify -- unit cluster").unwrap().command else {
            panic!("not verify")
        };
        assert_eq!(verify.layers, [Layer::Unit, Layer::Cluster]);
    }

    #[test]
    fn cluster_names_stay_plain() {
        for (name, accepted) in [("demo", true), ("a-1", true), ("", false), ("Demo", false)] {
            assert_eq!(cluster_name(name).is_ok(), accepted, "{name}");
        }
    }
}
