//! Layers: archives of files, the same bytes for the same files on every run.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use super::{hash, hex};
use crate::{cache::Cache, process};

/// A layer on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `sha256:…` of the archive, which is not compressed: it goes over no network.
    pub digest: String,
    pub size: u64,
    pub file: PathBuf,
}

/// What is at a path of a layer.
#[derive(Debug, Clone)]
enum Entry {
    Folder(u32),
    Text(String),
    Link(String),
    File(PathBuf),
    /// A program without its debug information.
    Program(PathBuf),
}

/// The files of a layer, by path without a leading slash.
#[derive(Debug, Clone, Default)]
pub struct Files(BTreeMap<String, Entry>);

impl Files {
    pub fn folder(&mut self, path: &str, mode: u32) {
        self.0.insert(path.to_owned(), Entry::Folder(mode));
    }

    pub fn text(&mut self, path: &str, text: &str) {
        self.0.insert(path.to_owned(), Entry::Text(text.to_owned()));
    }

    pub fn link(&mut self, path: &str, target: &str) {
        self.0.insert(path.to_owned(), Entry::Link(target.to_owned()));
    }

    pub fn file(&mut self, path: &str, source: &Path) {
        self.0.insert(path.to_owned(), Entry::File(source.to_owned()));
    }

    pub fn program(&mut self, path: &str, source: &Path) {
        self.0.insert(path.to_owned(), Entry::Program(source.to_owned()));
    }

    /// Whether there is something at a path.
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Writes the layer, or finds that of an earlier run from the same files.
    pub fn layer(&self, cache: &Cache) -> Result<Layer> {
        let folder = cache.images().join("layers");
        fs::create_dir_all(&folder)?;
        let known = cache.images().join(format!("{}.key", self.key()?));
        if let Ok(digest) = fs::read_to_string(&known)
            && let Some(layer) = existing(&folder, &digest)
        {
            return Ok(layer);
        }
        let layer = self.write(&folder)?;
        fs::write(known, &layer.digest)?;
        forget_old(&cache.images())?;
        forget_old(&folder)?;
        Ok(layer)
    }

    /// What the layer is made of: sources by size and time, as make does.
    fn key(&self) -> Result<String> {
        let mut text = String::new();
        for (path, entry) in &self.0 {
            write!(text, "{path} {entry:?}")?;
            if let Entry::File(source) | Entry::Program(source) = entry {
                let metadata = metadata(source)?;
                let (time, nanos) = (metadata.mtime(), metadata.mtime_nsec());
                write!(text, " {} {time}.{nanos}", metadata.len())?;
            }
            text.push('\n');
        }
        Ok(hash(text.as_bytes()))
    }

    fn write(&self, folder: &Path) -> Result<Layer> {
        let temporary = folder.join(format!(".new-{}-{}", std::process::id(), &self.key()?[..8]));
        let file = Hashing {
            inner: BufWriter::with_capacity(1 << 20, File::create(&temporary)?),
            hash: Sha256::new(),
        };
        let mut archive = Builder::new(file);
        for (path, entry) in &self.0 {
            entry.append(&mut archive, path, &temporary)?;
        }
        let mut written = archive.into_inner()?;
        written.flush()?;
        let digest = format!("sha256:{}", hex(&written.hash.finalize()));
        fs::rename(&temporary, blob(folder, &digest))?;
        existing(folder, &digest).context("a layer vanished")
    }
}

impl Entry {
    fn append(
        &self,
        archive: &mut Builder<impl Write>,
        path: &str,
        temporary: &Path,
    ) -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o644);
        header.set_size(0);
        match self {
            Self::Folder(mode) => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(*mode);
                archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
            }
            Self::Text(text) => {
                header.set_size(text.len() as u64);
                archive.append_data(&mut header, path, text.as_bytes())?;
            }
            Self::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                archive.append_link(&mut header, path, target)?;
            }
            Self::File(source) => append_file(archive, header, path, source)?,
            Self::Program(source) => {
                let stripped = temporary.with_extension("stripped");
                process::run(Command::new("strip").arg("-o").arg(&stripped).arg(source))?;
                append_file(archive, header, path, &stripped)?;
                fs::remove_file(stripped)?;
            }
        }
        Ok(())
    }
}

fn append_file(
    archive: &mut Builder<impl Write>,
    mut header: Header,
    path: &str,
    source: &Path,
) -> Result<()> {
    let metadata = metadata(source)?;
    header.set_size(metadata.len());
    header.set_mode(if metadata.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 });
    let file = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
    archive.append_data(&mut header, path, file.take(metadata.len()))?;
    Ok(())
}

fn metadata(source: &Path) -> Result<fs::Metadata> {
    fs::metadata(source).with_context(|| format!("cannot read {}", source.display()))
}

fn existing(folder: &Path, digest: &str) -> Option<Layer> {
    let path = blob(folder, digest);
    let file = File::open(&path).ok()?;
    // Its age is when it was last of use.
    file.set_modified(SystemTime::now()).ok();
    Some(Layer { digest: digest.to_owned(), size: file.metadata().ok()?.len(), file: path })
}

fn blob(folder: &Path, digest: &str) -> PathBuf {
    folder.join(digest.trim_start_matches("sha256:"))
}

/// Layers of binaries that were built long ago only take room.
fn forget_old(folder: &Path) -> Result<()> {
    const AGE: Duration = Duration::from_hours(7 * 24);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let age = metadata.modified()?.elapsed().unwrap_or_default();
        if metadata.is_file() && age > AGE {
            fs::remove_file(entry.path()).ok();
        }
    }
    Ok(())
}

/// Hashes what it writes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(data)?;
        self.hash.update(&data[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_the_same_layer() {
        let folder = std::env::temp_dir().join(format!("meshwright-layer-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut files = Files::default();
        files.folder("etc", 0o755);
        files.text("etc/passwd", "root:x:0:0::/:\n");
        files.link("lib", "usr/lib");
        let (first, second) = (files.write(&folder).unwrap(), files.write(&folder).unwrap());
        assert_eq!(first, second);
        files.text("etc/passwd", "");
        assert_ne!(files.write(&folder).unwrap().digest, first.digest);
        fs::remove_dir_all(folder).unwrap();
    }
}
