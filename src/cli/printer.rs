//! Where verbs write: results to standard output or a file, remarks to standard error.

use std::{fs, io::Write, path::PathBuf};

use anyhow::Context;

/// Writes what a verb has to say.
#[derive(Debug, Default)]
pub struct Printer {
    /// Standard output if not given.
    pub file: Option<PathBuf>,
}

impl Printer {
    /// The result, in one go.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        match &self.file {
            Some(file) => {
                fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
            }
            None => std::io::stdout()
                .lock()
                .write_all(text.as_bytes())
                .context("cannot write to standard output"),
        }
    }

    /// A line for the person at the terminal.
    pub fn warn(&self, line: &str) {
        // Nothing is left to do about a closed standard error.
        drop(writeln!(std::io::stderr().lock(), "Warning: {line}"));
    }
}
