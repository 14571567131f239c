//! The role in another network namespace, for the CNI plugin's daemon.

use std::{io, path::Path, process::Command};

/// Why a pod's network namespace has not become what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run nsenter, which the image must have: {0}")]
    Enter(io::Error),
    #[error("in the network namespace {namespace}: {said}")]
    Failed { namespace: String, said: String },
}

/// Runs `meshwright redirect ARGS` in the network namespace that a file stands for, as the program
/// that this is. Blocks until it ends.
///
/// The files there are still our own, so the pod's DNS servers are not known: `--dns=resolvers` is as
/// `all`, as [`plan_of_args`](crate::redirect::plan_of_args) says.
pub fn in_namespace(namespace: &Path, args: &[String]) -> Result<(), Error> {
    let program = std::env::current_exe().map_err(Error::Enter)?;
    in_namespace_with(&program, namespace, args)
}

/// The same with another program that has the role.
pub fn in_namespace_with(program: &Path, namespace: &Path, args: &[String]) -> Result<(), Error> {
    let output = Command::new("nsenter")
        .arg(format!("--net={}", namespace.display()))
        .arg("--")
        .arg(program)
        .arg("redirect")
        .args(args)
        .args(dns_of_others(args))
        .output()
        .map_err(Error::Enter)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Failed {
        namespace: namespace.display().to_string(),
        said: last_words(&String::from_utf8_lossy(&output.stderr))
            .unwrap_or_else(|| output.status.to_string()),
    })
}

/// The last of repeated flags holds.
fn dns_of_others(args: &[String]) -> Option<&'static str> {
    let resolvers = crate::redirect::args::parse(args).is_ok_and(|args| args.needs_resolvers());
    resolvers.then_some("--dns=all")
}

/// The complaint among the lines of the log.
fn last_words(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut complaints = lines.clone().filter_map(|line| line.strip_prefix("error: "));
    complaints.next_back().or_else(|| lines.next_back()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_the_complaint_and_not_the_log() {
        let said = "{\"message\":\"x\"}\nerror: no way\n  cause: y\n";
        assert_eq!(last_words(said).as_deref(), Some("no way"));
        assert_eq!(
            last_words("nsenter: no such file\n\n").as_deref(),
            Some("nsenter: no such file")
        );
        assert_eq!(last_words(""), None);
    }

    #[test]
    fn the_daemons_resolvers_are_not_the_pods() {
        assert_eq!(dns_of_others(&["--dns=resolvers".to_owned()]), Some("--dns=all"));
        assert_eq!(dns_of_others(&["--dns=off".to_owned()]), None);
        assert_eq!(dns_of_others(&["--dns".to_owned(), "resolvers".to_owned()]), Some("--dns=all"));
    }
}
