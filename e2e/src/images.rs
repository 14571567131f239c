//! Container images without an image builder: layers are archives of files of this machine, an image
//! is a few lines of JSON over them, and containerd imports both.
//!
//! Libraries, Envoy and the binary are layers of their own, so that a changed binary moves nothing
//! else. Names end in a hash of the content: the same content is never imported twice, and a new one
//! restarts what uses it.

mod archive;
mod build;
mod closure;
mod layer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

pub use self::{
    archive::Image,
    build::{build, cargo},
};
use crate::{cache::Cache, cluster::Node, process};

/// Registry of images that exist only here; also the chart's `image.registry`.
pub const REGISTRY: &str = "local";

/// What is built from this checkout.
#[derive(Debug)]
pub struct Set {
    pub images: Vec<Image>,
    /// Tag of the two images of the mesh.
    pub tag: String,
    /// The test application on this machine.
    pub testapp: PathBuf,
}

impl Set {
    /// References by the last part of their name.
    pub fn references(&self) -> BTreeMap<String, String> {
        self.images.iter().map(|image| (image.name.clone(), image.reference())).collect()
    }
}

/// Imports what the node does not have yet; gives the names of what was imported.
pub fn import(node: &Node, images: &[Image]) -> Result<Vec<String>> {
    let present = lines(ctr(node).args(["images", "list", "--quiet"]))?;
    let new: Vec<&Image> =
        images.iter().filter(|image| !present.contains(&image.canonical())).collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let blobs = lines(ctr(node).args(["content", "list", "--quiet"]))?;
    let mut command = ctr(node);
    let mut import = process::spawn(
        command
            .args(["images", "import", "--local", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    )?;
    let stdin = import.stdin.take().context("no way to hand images to containerd")?;
    // If containerd refuses, its own words say more than our broken pipe.
    let written = archive::write(stdin, &new, &blobs);
    let output = import.wait_with_output()?;
    ensure!(
        output.status.success(),
        "containerd does not take the images: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    written?;
    Ok(new.iter().map(|image| image.reference()).collect())
}

/// Writes images to a file for `kind load image-archive` and `k3d image import`.
pub fn save(images: &[Image], file: &Path) -> Result<()> {
    let images: Vec<&Image> = images.iter().collect();
    archive::write(std::fs::File::create(file)?, &images, &BTreeSet::new())
}

/// Imports the image that holds a pod's namespaces open.
pub fn pause(cache: &Cache, node: &Node) -> Result<()> {
    let image = build::pause(cache, &node.tools)?;
    // containerd's socket is there a moment after its process.
    crate::cluster::wait_for("containerd", Duration::from_mins(1), || {
        lines(ctr(node).args(["version"])).map(Some)
    })?;
    import(node, &[image]).map(drop)
}

/// The SHA-256 of something, in hexadecimal.
pub fn hash(data: &[u8]) -> String {
    hex(&Sha256::digest(data))
}

/// Enough of a hash for a name.
pub fn short_hash(digest: &[u8]) -> String {
    hex(digest)[..8].to_owned()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

fn ctr(node: &Node) -> Command {
    let program = node.tools.containerd("ctr").unwrap_or_else(|_| PathBuf::from("ctr"));
    let mut command = Command::new(program);
    command.arg("--address").arg(node.containerd_socket()).args(["--namespace", "k8s.io"]);
    command
}

fn lines(command: &mut Command) -> Result<BTreeSet<String>> {
    Ok(process::output(command)?.lines().map(str::to_owned).collect())
}
