//! What a program of this machine needs to run in an image: its libraries.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::layer::Files;
use crate::process;

/// Libraries and the loader of programs, as `ldd` finds them.
pub fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let text = process::output(Command::new("ldd").args(programs))
        .context("cannot list the libraries of what goes into images")?;
    Ok(parse(&text)?.into_iter().collect())
}

fn parse(text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in text.lines() {
        if line.contains("not found") {
            bail!("a library is missing: {}", line.trim());
        }
        // Several programs are told apart by a line each, with a colon. The others read
        // "name => /path (0x…)", or "/path (0x…)" for the loader; the kernel's own has no path.
        let path = line.split("=>").last().unwrap_or_default().trim().split(" (").next();
        if let Some(path) = path.filter(|path| path.starts_with('/') && !path.ends_with(':')) {
            found.push(PathBuf::from(path));
        }
    }
    Ok(found)
}

/// Adds files of this machine at their own paths, with /lib and its like below /usr.
pub fn add(files: &mut Files, sources: impl IntoIterator<Item = PathBuf>) {
    for source in sources {
        files.file(&inside(&source), &source);
    }
}

/// Path in an image of a file of this machine.
pub fn inside(path: &Path) -> String {
    let text = path.to_string_lossy();
    let text = text.trim_start_matches('/');
    let top = text.split('/').next().unwrap_or_default();
    if matches!(top, "lib" | "lib32" | "lib64" | "bin" | "sbin") {
        format!("usr/{text}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_understood() {
        let text = "/usr/bin/program:\n\tlinux-vdso.so.1 (0x00007ffe)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(parse(text).unwrap(), paths.map(PathBuf::from));
        assert!(parse("\tlibx.so => not found\n").is_err());
        assert_eq!(parse("\tstatically linked\n").unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn old_folders_are_below_usr() {
        assert_eq!(inside(Path::new("/lib64/ld.so")), "usr/lib64/ld.so");
        assert_eq!(inside(Path::new("/usr/lib/x.so")), "usr/lib/x.so");
    }
}
