//! Running other programs: all of them start here, behind the gate that an interrupt closes.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// Runs a command to its end and gives what it printed; the error holds what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let output = collect(command, None)?;
    succeeded(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`output`], with `input` on its standard input.
pub fn output_with_input(command: &mut Command, input: &str) -> Result<String> {
    let output = collect(command, Some(input))?;
    succeeded(command, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command for its effect.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Whether a command can be run and succeeds.
pub fn succeeds(command: &mut Command) -> bool {
    collect(command, None).is_ok_and(|output| output.status.success())
}

/// Runs a long command with its output in a file; the error shows the end of it.
pub fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let status = spawn(command)?.wait()?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        bail!(
            "{} failed ({status}); the end of {}:\n{}",
            describe(command),
            log.display(),
            tail(&text, 30)
        );
    }
    Ok(())
}

/// Starts a command behind the gate.
pub fn spawn(command: &mut Command) -> Result<Child> {
    let _gate = interrupt::gate();
    command.spawn().with_context(|| match command.get_program().to_str() {
        Some(program) => format!("cannot run {program}"),
        None => "cannot run a program".to_owned(),
    })
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Sends a signal to processes. Those that are gone are no error.
pub fn signal(name: &str, pids: &[u32]) {
    if pids.is_empty() {
        return;
    }
    let mut command = Command::new("kill");
    command.arg("-s").arg(name).arg("--").args(pids.iter().map(u32::to_string));
    succeeds(&mut command);
}

/// A living process's parent and session; nothing for one that only waits to be collected.
pub fn parent_and_session(pid: u32) -> Option<(u32, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last bracket may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let [state, parent, _group, session, ..] = fields[..] else { return None };
    if matches!(state, "Z" | "X") {
        return None;
    }
    Some((parent.parse().ok()?, session.parse().ok()?))
}

/// Whether a process lives.
pub fn is_alive(pid: u32) -> bool {
    parent_and_session(pid).is_some()
}

fn collect(command: &mut Command, input: Option<&str>) -> Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = spawn(command)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A program that ends early closes the pipe; its exit status tells why.
        stdin.write_all(input.as_bytes()).ok();
    }
    Ok(child.wait_with_output()?)
}

fn succeeded(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = if complaint.trim().is_empty() {
        String::from_utf8_lossy(&output.stdout)
    } else {
        complaint
    };
    bail!("{} failed ({}): {}", describe(command), output.status, tail(&complaint, 30))
}

/// The command as a person would say it: without the wrappers that put it into a namespace.
fn describe(command: &Command) -> String {
    let words: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let start = if words[0] == "nsenter" { 2.min(words.len() - 1) } else { 0 };
    let program = words[start].rsplit('/').next().unwrap_or_default().to_owned();
    let arguments = words[start + 1..]
        .iter()
        .map(|word| if word.len() > 120 { "…" } else { word })
        .collect::<Vec<_>>()
        .join(" ");
    format!("`{program} {arguments}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_hold_what_the_program_said() {
        let error = output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no such thing") && text.contains('3'), "{text}");
    }

    #[test]
    fn input_is_passed_on() {
        assert_eq!(output_with_input(&mut Command::new("cat"), "words").unwrap(), "words");
    }

    #[test]
    fn this_process_is_alive_and_has_a_parent() {
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(u32::MAX));
    }
}
