//! Running other programs.

use std::{
    io::{ErrorKind, Write as _},
    process::{Command, Stdio},
};

/// One attempt that failed, with the tool's own words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{program}: {reason}")]
pub struct Failed {
    program: String,
    reason: String,
}

impl Failed {
    pub(super) fn new(program: &str, reason: String) -> Self {
        Self { program: program.to_owned(), reason }
    }
}

/// Runs a program to its end, and returns what it printed.
pub(super) fn run(program: &str, args: &[&str], input: &str) -> Result<String, Failed> {
    let failed = |reason: String| Failed::new(program, reason);
    let io_failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => failed("not in this image".to_owned()),
        _ => failed(error.to_string()),
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io_failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it has read everything says why on standard error.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().map_err(io_failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    Err(failed(lines.next().map_or_else(|| output.status.to_string(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_tool_is_quoted() {
        let missing = run("meshwright-no-such-tool", &[], "").unwrap_err();
        assert_eq!(missing.to_string(), "meshwright-no-such-tool: not in this image");
        let failing = run("sh", &["-c", "echo >&2; echo 'no way' >&2; exit 3"], "").unwrap_err();
        assert_eq!(failing.to_string(), "sh: no way");
    }
}
