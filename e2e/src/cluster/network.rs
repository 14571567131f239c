//! The node's network: a namespace of its own, one link to the machine, no way out.
//!
//! The machine gets a route to the node and to the addresses of its load balancers, nothing else; the
//! node has no default route, so whatever runs there cannot reach anything outside.

use std::{fmt::Write, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::node::{Node, RUNTIME, SERVICE_RANGE, global_name, netns};
use crate::{cache::Cache, interrupt, lock::Lock, process};

/// Makes the namespace and the link, with the first number that is free on this machine.
pub fn up(cache: &Cache, name: &str) -> Result<Node> {
    // Two clusters must not choose the same number; the link marks it as taken.
    let _lock = Lock::take(&Path::new(RUNTIME).join("network.lock"), |_| ())?;
    let node = Node::new(cache, name, free_index()?);
    fs::create_dir_all(&node.state)?;
    share_mounts(&node.runtime)?;
    fs::write(node.state.join("index"), node.index.to_string())?;
    process::run(Command::new("ip").args(["netns", "add", &global_name(name)]))?;
    let (host, inside, range) = (node.host_link(), node.node_link(), node.balancer_range());
    let (host_address, address) = (node.host_address(), node.address());
    batch(
        &[],
        &format!(
            "link add {host} type veth peer name {inside} netns {global}\n\
             addr add {host_address}/24 dev {host}\n\
             link set {host} up\n\
             route add {range}.0/24 via {address} dev {host}\n",
            global = global_name(name)
        ),
    )?;
    let mut lines = format!(
        "link set lo up\n\
         addr add {address}/24 dev {inside}\n\
         link set {inside} up\n"
    );
    // A connection needs a route before the service proxy gets to see it.
    for services in [SERVICE_RANGE, &format!("{range}.0/24")] {
        writeln!(lines, "route add {services} dev {inside} src {address}")?;
    }
    batch(&["-netns", &global_name(name)], &lines)?;
    allow_forwarding(&node)?;
    Ok(node)
}

/// Makes a folder whose mounts containers get to see, also those that come later: the CNI daemon needs
/// the network namespaces of pods. Where the machine's root is shared, this is its own group all the
/// same, or every mount would be there twice.
fn share_mounts(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    process::run(Command::new("mount").args(["--bind", "--make-private"]).args([folder, folder]))?;
    process::run(Command::new("mount").arg("--make-shared").arg(folder))
}

/// Takes away what is left of a cluster's network.
pub fn down(name: &str, index: Option<u8>) {
    if netns(name).exists() {
        process::succeeds(Command::new("ip").args(["netns", "delete", &global_name(name)]));
    }
    if let Some(index) = index {
        // Goes with the namespace, but only once the kernel gets to it.
        process::succeeds(Command::new("ip").args(["link", "delete", &format!("mw{index}h")]));
    }
}

fn free_index() -> Result<u8> {
    let addresses = process::output(Command::new("ip").args(["-oneline", "-4", "address"]))?;
    let routes = process::output(Command::new("ip").args(["-4", "route"]))?;
    let taken = |index: &u8| {
        addresses.contains(&format!(" 198.18.{index}."))
            || routes.contains(&format!("198.19.{index}."))
    };
    (0..=u8::MAX)
        .find(|index| !taken(index))
        .context("every network of 198.18.0.0/16 is in use: end clusters with `cargo demo -- down`")
}

fn batch(arguments: &[&str], lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    process::output_with_input(command.args(arguments).args(["-batch", "-"]), lines).map(drop)
}

/// These settings belong to the namespace of whoever writes them.
fn allow_forwarding(node: &Node) -> Result<()> {
    interrupt::checkpoint();
    process::run(Command::new("nsenter").arg(format!("--net={}", node.netns().display())).args([
        "sh",
        "-c",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ]))
}
