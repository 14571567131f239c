//! The chart: helm accepts it, and what it renders is what is committed.

use std::{fs, process::Command};

use anyhow::{Result, ensure};

use super::totals::Totals;
use crate::{
    cache::{Cache, project},
    process,
    steps::Steps,
    tools::{self, Tool},
};

pub fn check(cache: &Cache, steps: &mut Steps, totals: &mut Totals) -> Result<()> {
    let tools = steps.run("helm is there", || tools::install(cache, &[Tool::Helm]))?;
    let program = tools.helm()?;
    let helm = || {
        let mut command = Command::new(&program);
        command.current_dir(project());
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, cache.root().join("helm").join(folder));
        }
        command
    };
    let lint = steps.run("chart: helm lint", || {
        process::run(helm().args(["lint", "--strict", "charts/meshwright"]))
    });
    count(steps, totals, "chart: helm lint", lint);
    let committed = project().join("manifests/meshwright.yaml");
    if committed.is_file() {
        let fresh = steps.run("chart: manifests/ is fresh", || {
            let rendered = process::output(helm().args([
                "template",
                "meshwright",
                "charts/meshwright",
                "--namespace",
                "meshwright-system",
                "--include-crds",
            ]))?;
            ensure!(
                fs::read_to_string(&committed)?.contains(rendered.trim()),
                "manifests/meshwright.yaml is not what the chart renders: render it anew"
            );
            Ok(())
        });
        count(steps, totals, "chart: manifests/ is fresh", fresh);
    }
    Ok(())
}

fn count(steps: &Steps, totals: &mut Totals, name: &str, result: Result<()>) {
    match result {
        Ok(()) => totals.passed(),
        Err(error) => {
            steps.say(&format!("{error:#}"));
            totals.failed(name);
        }
    }
}
