//! Images as OCI layouts in an archive, which is what containerd imports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Write},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::{REGISTRY, hash, layer::Layer};

/// An image: a name, and layers with a way to start them.
#[derive(Debug, Clone)]
pub struct Image {
    pub name: String,
    pub tag: String,
    pub layers: Vec<Layer>,
    pub entrypoint: String,
    /// Numeric, so that `runAsNonRoot` can be checked; empty for root.
    pub user: String,
}

impl Image {
    /// A short hash of several images, as the tag that they share.
    pub fn shared_tag<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> String {
        let digests: Vec<&str> = layers.into_iter().map(|layer| layer.digest.as_str()).collect();
        hash(digests.join(" ").as_bytes())[..12].to_owned()
    }

    /// As pods name it.
    pub fn reference(&self) -> String {
        format!("{REGISTRY}/{}:{}", self.name, self.tag)
    }

    /// As containerd names it: a name without a host is one of the default registry.
    pub fn canonical(&self) -> String {
        format!("docker.io/{}", self.reference())
    }

    fn config(&self) -> Value {
        let digests: Vec<&str> = self.layers.iter().map(|layer| layer.digest.as_str()).collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": [self.entrypoint],
                "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "User": self.user,
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
        })
    }

    fn manifest(&self, config: &Blob) -> Value {
        let layers = self.layers.iter().map(|layer| {
            descriptor("application/vnd.oci.image.layer.v1.tar", &layer.digest, layer.size)
        });
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": layers.collect::<Vec<_>>(),
        })
    }
}

/// A small piece of content.
struct Blob {
    digest: String,
    data: Vec<u8>,
}

impl Blob {
    fn new(value: &Value) -> Self {
        let data = value.to_string().into_bytes();
        Self { digest: format!("sha256:{}", hash(&data)), data }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        descriptor(media_type, &self.digest, self.data.len() as u64)
    }
}

/// Writes images, leaving out the layers that the receiver has.
pub fn write(to: impl Write, images: &[&Image], present: &BTreeSet<String>) -> Result<()> {
    let mut archive = Builder::new(to);
    let mut layers = BTreeMap::new();
    let mut manifests = Vec::new();
    for image in images {
        let config = Blob::new(&image.config());
        let manifest = Blob::new(&image.manifest(&config));
        let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
        entry["platform"] = json!({"architecture": architecture(), "os": "linux"});
        entry["annotations"] = json!({
            "io.containerd.image.name": image.canonical(),
            "org.opencontainers.image.ref.name": image.tag,
        });
        manifests.push(entry);
        for blob in [config, manifest] {
            append(&mut archive, &path(&blob.digest), blob.data.len() as u64, &blob.data[..])?;
        }
        layers.extend(image.layers.iter().map(|layer| (layer.digest.clone(), layer)));
    }
    for (digest, layer) in layers {
        if !present.contains(&digest) {
            let file = File::open(&layer.file)
                .with_context(|| format!("cannot read {}", layer.file.display()))?;
            append(&mut archive, &path(&digest), layer.size, file)?;
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    for (name, value) in
        [("oci-layout", json!({"imageLayoutVersion": "1.0.0"})), ("index.json", index)]
    {
        let text = value.to_string();
        append(&mut archive, name, text.len() as u64, text.as_bytes())?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

fn append(archive: &mut Builder<impl Write>, path: &str, size: u64, data: impl Read) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, path, data)?;
    Ok(())
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
