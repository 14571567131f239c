//! `cargo demo`: from an empty machine to a mesh that serves traffic, and back.

use anyhow::Result;

use crate::{
    args::{DemoAction, DemoArgs},
    cache::Cache,
    cluster::{self, Booted, Cluster},
    deploy::{self, Source},
    existing, images, preflight, reload, scenarios,
    steps::{Steps, print, seconds},
    tools::{self, Tool, Tools},
};

pub fn run(args: &DemoArgs) -> Result<()> {
    preflight::platform()?;
    let cache = Cache::open()?;
    if args.kubeconfig.is_some() {
        return existing::run(args, &cache);
    }
    preflight::check(&cache)?;
    // Before anything long: a second run says at once why it does not start.
    let _lock = cluster::lock(&args.name)?;
    match args.action {
        Some(DemoAction::Down) => down(&cache, &args.name),
        Some(DemoAction::Reload) => reload::run(&cache, &args.name),
        None => show(&cache, args),
    }
}

fn show(cache: &Cache, args: &DemoArgs) -> Result<()> {
    let mut steps = Steps::new();
    let tools = prepare(cache, &mut steps)?;
    let booted = cluster::ensure(cache, &args.name, &mut steps)?;
    let result = install(cache, &tools, &booted, &mut steps).and_then(|cluster| {
        scenarios::demo(&cluster, &mut steps)?;
        Ok(cluster)
    });
    match result {
        Ok(cluster) => farewell(&cluster, &booted, args, &steps),
        Err(error) => {
            steps.say(&format!(
                "\nThe cluster is left up to look at:\n{}",
                handles(&booted, &args.name)
            ));
            return Err(error);
        }
    }
    Ok(())
}

/// Installs what a throwaway cluster is made of.
pub fn prepare(cache: &Cache, steps: &mut Steps) -> Result<Tools> {
    let missing = Tools::new(cache).missing(&Tool::CLUSTER)?.len();
    let title = match missing {
        0 => "tools are there".to_owned(),
        some => format!("{some} tools are installed (Go builds; once for this machine)"),
    };
    steps.run(&title, || {
        tools::system_packages(cache)?;
        tools::install(cache, &Tool::CLUSTER)
    })
}

/// Builds the images, brings them into the node and installs the mesh from them.
pub fn install(
    cache: &Cache,
    tools: &Tools,
    booted: &Booted,
    steps: &mut Steps,
) -> Result<Cluster> {
    let set = images::build(cache, tools, steps)?;
    steps.run("images are imported", || images::import(&booted.node, &set.images).map(drop))?;
    let source = Source { registry: images::REGISTRY.to_owned(), tag: set.tag.clone() };
    let cluster = booted.cluster.clone().with_images(set.references(), set.testapp);
    deploy::gateway_api(&cluster, tools, steps)?;
    deploy::mesh(&cluster, &source, steps)?;
    Ok(cluster)
}

fn down(cache: &Cache, name: &str) -> Result<()> {
    if !cluster::anything_left(cache, name) {
        print(&format!("there is no cluster {name}"));
        return Ok(());
    }
    let mut steps = Steps::new();
    steps.run(
        &format!("cluster {name}: processes, network, mounts, cgroups and files are gone"),
        || cluster::take_away(cache, name),
    )
}

fn farewell(cluster: &Cluster, booted: &Booted, args: &DemoArgs, steps: &Steps) {
    let address = deploy::gateway_address(cluster).unwrap_or_else(|| "none yet".to_owned());
    steps.say(&format!(
        "\nThe mesh serves traffic, {} after the start. It stays up.\n  gateway  http://{address}/\n{}",
        seconds(steps.elapsed()),
        handles(booted, &args.name)
    ));
}

/// How to go on with a cluster.
fn handles(booted: &Booted, name: &str) -> String {
    let option = if name == "demo" { String::new() } else { format!(" --name {name}") };
    format!(
        "  kubectl  {} get pods -A\n  or       export KUBECONFIG={}\n  reload   cargo demo -- reload{option}\n  stop     cargo demo -- down{option}",
        booted.node.kubectl().display(),
        booted.cluster.kubeconfig().display(),
    )
}
