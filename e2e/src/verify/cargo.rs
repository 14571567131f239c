//! Layers that cargo runs.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::totals::Totals;
use crate::{
    cache::{Cache, project},
    images, process,
    steps::Steps,
    tools::{self, Tool, Tools},
};

/// Property tests take the same inputs in each run, so that a change is judged by itself; [`fuzz`]
/// takes others each time.
const SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "20261121");
const FUZZ: [(&str, &str); 2] = [("MESHWRIGHT_FUZZ_SECONDS", "600"), ("PROPTEST_CASES", "5000")];

/// A check that passes or fails as a whole.
pub fn check(
    cache: &Cache,
    steps: &mut Steps,
    totals: &mut Totals,
    name: &str,
    arguments: &[&str],
) {
    let log = cache.logs().join(format!("verify-{name}.log"));
    let command = &mut images::cargo(cache);
    match steps.run(name, || process::logged(command.args(arguments), &log)) {
        Ok(()) => totals.passed(),
        Err(error) => {
            steps.say(&format!("{error:#}"));
            totals.failed(name);
        }
    }
}

/// Licences, bans and sources; advisories would need a database from elsewhere.
pub fn deny(cache: &Cache, steps: &mut Steps, totals: &mut Totals) -> Result<()> {
    let tools = steps.run("cargo-deny is there", || tools::install(cache, &[Tool::CargoDeny]))?;
    let log = cache.logs().join("verify-deny.log");
    let mut command = Command::new(tools.cargo_deny()?);
    command.args(["--offline", "check", "bans", "licenses", "sources"]).current_dir(project());
    match steps.run("deny", || process::logged(&mut command, &log)) {
        Ok(()) => totals.passed(),
        Err(error) => {
            steps.say(&format!("{error:#}"));
            totals.failed("deny");
        }
    }
    Ok(())
}

/// Tests that need nothing but cargo.
pub fn unit(cache: &Cache, steps: &mut Steps, totals: &mut Totals) -> Result<()> {
    let mut arguments = words(&["--workspace", "--lib", "--bins"]);
    for target in targets()?.into_iter().filter(|name| layer_of(name) == "unit") {
        arguments.extend(["--test".to_owned(), target]);
    }
    test(cache, steps, totals, "unit", &arguments, &[SEED])
}

/// Tests over generated inputs, for longer and with inputs that no run had before.
pub fn fuzz(cache: &Cache, steps: &mut Steps, totals: &mut Totals) -> Result<()> {
    let mut arguments = words(&["--package", "meshwright"]);
    let generated = |name: &String| {
        ["_fuzz", "_properties"].iter().any(|end| name.ends_with(end)) || name == "inject"
    };
    for target in targets()?.into_iter().filter(generated) {
        arguments.extend(["--test".to_owned(), target]);
    }
    test(cache, steps, totals, "fuzz", &arguments, &FUZZ)
}

/// Test programs of a layer, which drive a real Envoy.
pub fn with_envoy(
    cache: &Cache,
    steps: &mut Steps,
    totals: &mut Totals,
    layer: &str,
) -> Result<()> {
    steps.run("Envoy is there", || tools::install(cache, &[Tool::Envoy]).map(drop))?;
    let mut arguments = words(&["--package", "meshwright"]);
    for target in targets()?.into_iter().filter(|name| layer_of(name) == layer) {
        arguments.extend(["--test".to_owned(), target]);
    }
    if arguments.len() == 2 {
        steps.say(&format!("not run: there are no tests/{layer}*.rs"));
        return Ok(());
    }
    test(cache, steps, totals, layer, &arguments, &[SEED])
}

fn test(
    cache: &Cache,
    steps: &mut Steps,
    totals: &mut Totals,
    name: &str,
    arguments: &[String],
    variables: &[(&str, &str)],
) -> Result<()> {
    let log = cache.logs().join(format!("verify-{name}.log"));
    let mut command = images::cargo(cache);
    command.arg("test").args(arguments).args(["--no-fail-fast"]);
    command.envs(variables.iter().copied());
    let envoy = Tools::new(cache).envoy()?;
    if envoy.is_file() {
        command.env("MESHWRIGHT_ENVOY", envoy);
    }
    let result = steps.run(name, || process::logged(&mut command, &log));
    let output = fs::read_to_string(&log).unwrap_or_default();
    let failed = totals.add(&output);
    if let Err(error) = result {
        if failed == 0 {
            // It did not compile, or a test program died.
            steps.say(&format!("{error:#}"));
            totals.failed(name);
        } else {
            steps.say(&details(&output, &log));
        }
    }
    Ok(())
}

/// What failed tests printed.
fn details(output: &str, log: &Path) -> String {
    const LINES: usize = 300;
    let mut lines: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in output.lines() {
        inside = (inside || line == "failures:") && !line.starts_with("test result: ");
        if inside {
            lines.push(line);
        }
    }
    lines.truncate(LINES);
    format!("{}\nall of it: {}", lines.join("\n"), log.display())
}

/// Integration test programs of the main crate.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    let folder = project().join("tests");
    if !folder.is_dir() {
        return Ok(names);
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_target = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("main.rs").is_file();
        if let Some(name) = path.file_stem().filter(|_| is_target) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The layer of a test program, by its name.
fn layer_of(target: &str) -> &'static str {
    match target.split('_').next() {
        Some("envoy") => "envoy",
        Some("netns") => "netns",
        _ => "unit",
    }
}

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_the_layer() {
        for (name, layer) in [("envoy_accepts", "envoy"), ("netns", "netns"), ("golden", "unit")] {
            assert_eq!(layer_of(name), layer);
        }
    }

    #[test]
    fn only_failures_are_shown() {
        let output = "test a ... ok\n\nfailures:\n\n---- b ----\nboom\n\nfailures:\n    b\n\n\
                      test result: FAILED. 1 passed; 1 failed\ntest c ... ok\n";
        let shown = details(output, Path::new("log"));
        assert!(shown.contains("boom") && !shown.contains("test c"), "{shown}");
    }
}
