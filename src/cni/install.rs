//! Puts the plugin on the node and takes it away: its program among the CNI programs, its entry in
//! the network configuration that the container runtime uses.
//!
//! Each file appears whole, by renaming, and the program before the entry that names it. A changed
//! configuration is kept beside, under a name that no runtime reads, so that it can be put back to
//! the byte.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::conflist::{self, Form, PLUGIN};

/// Behind the name of a configuration as it was before us.
const SAVED: &str = ".before-meshwright";

/// Where things are on the node, and what goes there.
#[derive(Clone, Debug)]
pub struct Installer {
    /// Folder of the CNI programs.
    pub bin_dir: PathBuf,
    /// Folder of the network configurations.
    pub conf_dir: PathBuf,
    /// The plugin's program as it came with the daemon.
    pub program: PathBuf,
    /// The plugin's entry in a list.
    pub entry: Value,
}

/// How a look at the node ended.
#[derive(Debug, PartialEq, Eq)]
pub enum State {
    /// The entry was added to this file, or brought up to date.
    Added(PathBuf),
    /// There was nothing to do.
    Installed,
    /// There is no configuration that the plugin can be added to yet.
    Waiting(String),
}

/// What failed, and where.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {error}", path.display())]
pub struct Failed {
    doing: &'static str,
    path: PathBuf,
    error: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
    move |error| Failed { doing, path: path.to_owned(), error }
}

impl Installer {
    /// Copies the program, unless that very program is there. A plugin that runs keeps its own.
    pub fn copy_program(&self) -> Result<(), Failed> {
        let target = self.bin_dir.join(PLUGIN);
        let new = fs::read(&self.program).map_err(failed("read", &self.program))?;
        if fs::read(&target).is_ok_and(|old| old == new) {
            return Ok(());
        }
        fs::create_dir_all(&self.bin_dir).map_err(failed("make", &self.bin_dir))?;
        let permissions = fs::metadata(&self.program).map(|metadata| metadata.permissions());
        let permissions = permissions.map_err(failed("read", &self.program))?;
        replace(&target, &new, Some(permissions))
    }

    /// Looks at the node, and makes it as it should be.
    pub fn ensure(&self) -> Result<State, Failed> {
        if !self.bin_dir.join(PLUGIN).is_file() {
            self.copy_program()?;
        }
        let Some((name, form)) = self.first()? else {
            let folder = self.conf_dir.display();
            return Ok(State::Waiting(format!("there is no network configuration in {folder}")));
        };
        let path = self.conf_dir.join(&name);
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let before = match conflist::list(&text, form) {
            Ok(list) => list,
            Err(reason) => return Ok(State::Waiting(format!("{}: {reason}", path.display()))),
        };
        let after = match conflist::add(before.clone(), &self.entry) {
            Ok(list) => list,
            Err(reason) => return Ok(State::Waiting(format!("{}: {reason}", path.display()))),
        };
        if form == Form::List && after == before {
            return Ok(State::Installed);
        }
        let saved = self.conf_dir.join(format!("{name}{SAVED}"));
        if !conflist::contains(&before) {
            replace(&saved, text.as_bytes(), None)?;
        }
        // Its owner may have written it meanwhile: then its new text counts, at the next look.
        if fs::read_to_string(&path).map_err(failed("read", &path))? != text {
            return Ok(State::Waiting(format!("{} changes", path.display())));
        }
        let target = self.list_for(&name, form);
        let permissions = fs::metadata(&path).ok().map(|metadata| metadata.permissions());
        replace(&target, conflist::text(&after).as_bytes(), permissions)?;
        if form == Form::Single {
            // Runtimes take the first by name, so it must go; it stays as the saved one.
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(State::Added(target))
    }

    /// Takes the entry out of every configuration. Those that nobody else changed are as before, to
    /// the byte.
    pub fn remove_entry(&self) -> Result<(), Failed> {
        for (name, form) in self.configurations()? {
            let path = self.conf_dir.join(&name);
            let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
            if let Ok(list) = conflist::list(&text, form)
                && conflist::contains(&list)
            {
                self.restore(&name, &conflist::remove(list))?;
            }
        }
        for saved in self.files()?.iter().filter(|name| name.ends_with(SAVED)) {
            let path = self.conf_dir.join(saved);
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        Ok(())
    }

    /// Removes the program. Only when no configuration names it, or no pod could start or end.
    pub fn remove_program(&self) -> Result<(), Failed> {
        let target = self.bin_dir.join(PLUGIN);
        match fs::remove_file(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &target)(error))
            }
            _ => Ok(()),
        }
    }

    /// Puts back what was there before `name`, if that is all that `list` says now.
    fn restore(&self, name: &str, list: &Value) -> Result<(), Failed> {
        let path = self.conf_dir.join(name);
        for (original, form) in
            [(name, Form::List), (name.strip_suffix(".conflist").unwrap_or_default(), Form::Single)]
        {
            let saved = self.conf_dir.join(format!("{original}{SAVED}"));
            let Ok(text) = fs::read_to_string(&saved) else { continue };
            if conflist::list(&text, form).is_ok_and(|before| before == *list) {
                let target = self.conf_dir.join(original);
                fs::rename(&saved, &target).map_err(failed("restore", &target))?;
                if target != path {
                    fs::remove_file(&path).map_err(failed("remove", &path))?;
                }
                return Ok(());
            }
        }
        let permissions = fs::metadata(&path).ok().map(|metadata| metadata.permissions());
        replace(&path, conflist::text(list).as_bytes(), permissions)
    }

    /// The file that holds the list: for a single plugin a new one, which no other project's is.
    fn list_for(&self, name: &str, form: Form) -> PathBuf {
        match form {
            Form::List => self.conf_dir.join(name),
            Form::Single => self.conf_dir.join(format!("{name}.conflist")),
        }
    }

    /// The configuration that container runtimes use: the first by name.
    fn first(&self) -> Result<Option<(String, Form)>, Failed> {
        Ok(self.configurations()?.into_iter().next())
    }

    fn configurations(&self) -> Result<Vec<(String, Form)>, Failed> {
        let files = self.files()?.into_iter();
        Ok(files.filter_map(|name| Form::of(&name).map(|form| (name, form))).collect())
    }

    fn files(&self) -> Result<Vec<String>, Failed> {
        let listed = match fs::read_dir(&self.conf_dir) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
            // The network's own installer makes the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let entries = listed.map_err(failed("list", &self.conf_dir))?;
        let mut names: Vec<String> =
            entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }
}

/// Writes a file whole or not at all.
fn replace(
    path: &Path,
    content: &[u8],
    permissions: Option<fs::Permissions>,
) -> Result<(), Failed> {
    // In the same folder, hence on the same file system; no runtime reads a name like this.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.meshwright-new"));
    let written = fs::write(&new, content)
        .and_then(|()| permissions.map_or(Ok(()), |mode| fs::set_permissions(&new, mode)))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|error| {
        drop(fs::remove_file(&new));
        failed("write", path)(error)
    })
}

#[cfg(test)]
mod tests;
