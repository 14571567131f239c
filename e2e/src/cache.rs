//! Where everything that outlives a run is kept: one folder of the user's cache.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// The cache folder. Cheap to clone, made once at the start.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$MESHWRIGHT_CACHE`, else `$XDG_CACHE_HOME/meshwright`, else `~/.cache/meshwright`.
    pub fn open() -> Result<Self> {
        let folder = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let root = folder("MESHWRIGHT_CACHE")
            .map(PathBuf::from)
            .or_else(|| folder("XDG_CACHE_HOME").map(|xdg| Path::new(&xdg).join("meshwright")))
            .or_else(|| folder("HOME").map(|home| Path::new(&home).join(".cache/meshwright")))
            .context(
                "no cache folder: set HOME or MESHWRIGHT_CACHE to a folder that may be filled",
            )?;
        let root = std::path::absolute(root)?;
        let cache = Self { root };
        for folder in [cache.tools(), cache.images(), cache.runs(), cache.logs()] {
            fs::create_dir_all(&folder).with_context(|| {
                format!(
                    "cannot make {}: set MESHWRIGHT_CACHE to a folder that may be filled",
                    folder.display()
                )
            })?;
        }
        Ok(cache)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Installed tools, one folder `NAME-VERSION` each.
    pub fn tools(&self) -> PathBuf {
        self.root.join("tools")
    }

    /// Layers and archives of images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// State of every cluster.
    pub fn runs(&self) -> PathBuf {
        self.root.join("run")
    }

    /// State of one cluster.
    pub fn run(&self, name: &str) -> PathBuf {
        self.runs().join(name)
    }

    /// Output of long commands.
    pub fn logs(&self) -> PathBuf {
        self.root.join("log")
    }

    /// What cargo builds for the cluster and the tests, so that a new checkout reuses dependencies.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }
}

/// The checkout this harness was built from.
pub fn project() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
