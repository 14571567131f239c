//! Locks between runs: files under an advisory lock, which ends with the process that holds it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
};

use anyhow::{Context, Result};

/// A held lock. Dropping it, or the end of the process, releases it.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or says which process holds it.
    pub fn try_take(path: &Path) -> Result<Result<Self, Holder>> {
        let mut file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Ok(Self::sign(file)?)),
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                Ok(Err(Holder { pid: pid.trim().to_owned() }))
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Waits for the lock; `waiting` is told who holds it, once, if anybody does.
    pub fn take(path: &Path, waiting: impl FnOnce(&Holder)) -> Result<Self> {
        match Self::try_take(path)? {
            Ok(lock) => Ok(lock),
            Err(holder) => {
                waiting(&holder);
                let file = open(path)?;
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
                Self::sign(file)
            }
        }
    }

    fn sign(mut file: File) -> Result<Self> {
        file.set_len(0)?;
        file.rewind()?;
        write!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

/// Who holds a lock.
#[derive(Debug)]
pub struct Holder {
    pub pid: String,
}

fn open(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_the_holder() {
        let path = std::env::temp_dir().join(format!("meshwright-lock-{}", std::process::id()));
        let held = Lock::try_take(&path).unwrap().unwrap();
        let holder = Lock::try_take(&path).unwrap().unwrap_err();
        assert_eq!(holder.pid, std::process::id().to_string());
        drop(held);
        // A program that another test starts may hold a copy of the file for a moment.
        Lock::take(&path, |_| ()).unwrap();
        fs::remove_file(path).unwrap();
    }
}
