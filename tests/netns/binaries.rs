//! The programs that run inside.

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// Programs where every user may execute them: the build directory may be root's alone. And a folder
/// of tools without those of nf_tables' iptables, and one in which one of those does not work.
pub struct Binaries {
    directory: tempfile::TempDir,
}

impl Binaries {
    /// One copy for all pods of this process, gone with the last of them.
    pub fn shared() -> Arc<Self> {
        static COPY: Mutex<Weak<Binaries>> = Mutex::new(Weak::new());
        let mut copy = COPY.lock().unwrap_or_else(PoisonError::into_inner);
        copy.upgrade().unwrap_or_else(|| {
            let new = Arc::new(Self::copy());
            *copy = Arc::downgrade(&new);
            new
        })
    }

    fn copy() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), everybody).unwrap();
        let this = Self { directory };
        link(&std::env::current_exe().unwrap(), &this.path("inside"));
        link(Path::new(env!("CARGO_BIN_EXE_meshwright")), &this.path("meshwright"));
        let legacy = this.path("legacy");
        std::fs::create_dir(&legacy).unwrap();
        for tool in ["iptables-legacy-", "ip6tables-legacy-"] {
            for verb in ["save", "restore"] {
                let name = format!("{tool}{verb}");
                symlink(Path::new("/usr/sbin").join(&name), legacy.join(name)).unwrap();
            }
        }
        for tool in ["ip", "nft"] {
            symlink(Path::new("/usr/sbin").join(tool), legacy.join(tool)).unwrap();
        }
        let half = this.path("half");
        std::fs::create_dir(&half).unwrap();
        for entry in std::fs::read_dir(&legacy).unwrap() {
            let name = entry.unwrap().file_name();
            let broken = name == "ip6tables-legacy-restore";
            let tool = if broken { "/bin/false".into() } else { legacy.join(&name) };
            symlink(tool, half.join(name)).unwrap();
        }
        this
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// The same file under another name, or a copy on another file system.
fn link(from: &Path, to: &Path) {
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to).unwrap();
    }
}
