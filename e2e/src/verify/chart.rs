//! The chart: helm accepts it, what it renders is what is committed, and the objects of every way to
//! use it are valid Kubernetes and pass checkov, but for what [`excuses`] gives a reason for.

mod excuses;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::excuses::Excuses;
use super::totals::Totals;
use crate::{
    cache::{Cache, project},
    process,
    steps::Steps,
    tools::{self, Tool, Tools},
};

const CHART: &str = "charts/meshwright";
/// Each has a file `values.yaml`; together they set every value that there is.
const CASES: &str = "tests/golden/chart";

pub fn check(cache: &Cache, steps: &mut Steps, totals: &mut Totals) -> Result<()> {
    let wanted = [Tool::Helm, Tool::Kubeconform, Tool::Checkov];
    let tools =
        steps.run("helm, kubeconform and checkov are there", || tools::install(cache, &wanted))?;
    let helm = Helm { program: tools.helm()?, home: cache.root().join("helm") };
    let mut judge = |name: &str, check: &dyn Fn() -> Result<()>| {
        let outcome = steps.run(name, check);
        count(steps, totals, name, outcome);
    };
    judge("chart: helm lint", &|| process::run(helm.command().args(["lint", "--strict", CHART])));
    judge("chart: manifests/ is fresh", &|| is_fresh(&helm));
    let folder = cache.root().join("chart");
    judge("chart: every case renders", &|| render_all(&helm, &folder));
    judge("chart: kubeconform", &|| kubeconform(&tools, &folder));
    judge("chart: checkov", &|| checkov(&tools, &folder));
    Ok(())
}

struct Helm {
    program: PathBuf,
    home: PathBuf,
}

impl Helm {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(project());
        for (name, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "config"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(name, self.home.join(folder));
        }
        command
    }

    fn template(&self, flags: &[&str]) -> Result<String> {
        let mut command = self.command();
        command.args(["template", "meshwright", CHART, "--namespace", "meshwright-system"]);
        process::output(command.args(flags))
    }
}

fn is_fresh(helm: &Helm) -> Result<()> {
    // Hooks are tests and what runs at an uninstallation: kubectl would not know to leave them alone.
    let rendered = helm.template(&["--no-hooks"])?;
    let committed = fs::read_to_string(project().join("manifests/meshwright.yaml"))?;
    ensure!(
        committed.contains(rendered.trim()),
        "manifests/meshwright.yaml is not what the chart renders: render it anew"
    );
    Ok(())
}

/// Writes a file for the defaults and for each case.
fn render_all(helm: &Helm, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("defaults.yaml"), helm.template(&[])?)?;
    for case in fs::read_dir(project().join(CASES))? {
        let case = case?;
        let values = case.path().join("values.yaml");
        let rendered = helm.template(&["--values", &values.to_string_lossy()])?;
        fs::write(folder.join(case.file_name()).with_extension("yaml"), rendered)?;
    }
    Ok(())
}

/// Every object has the fields of its kind, and no other.
fn kubeconform(tools: &Tools, folder: &Path) -> Result<()> {
    let (program, schemas) = tools.kubeconform()?;
    let location =
        format!("{}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json", schemas.display());
    let excuses = Excuses::read()?;
    let kinds: Vec<&str> = excuses.of("kubeconform").map(|excuse| excuse.rule.as_str()).collect();
    let mut command = Command::new(program);
    command.args(["-strict", "-summary", "-schema-location", &location]);
    let summary = process::output(command.args(["-skip", &kinds.join(",")]).arg(folder))?;
    ensure!(!summary.contains(" 0 resources"), "kubeconform has seen nothing: {summary}");
    Ok(())
}

/// What checkov finds has an excuse, and every excuse something that it is for.
fn checkov(tools: &Tools, folder: &Path) -> Result<()> {
    let mut command = tools.checkov()?;
    // The folder lies in the cache, whose name begins with a dot.
    command.env("CKV_IGNORE_HIDDEN_DIRECTORIES", "false");
    command.args(["--framework", "kubernetes", "--output", "json", "--quiet", "--compact"]);
    command.args(["--skip-download", "--soft-fail", "--directory"]).arg(folder);
    let report = process::output(&mut command)?;
    let report: Value = serde_json::from_str(&report).context("checkov prints no JSON")?;
    ensure!(report["summary"]["passed"].as_u64().is_some_and(|n| n > 100), "checkov saw nothing");
    let failed = report["results"]["failed_checks"].as_array();
    let found = failed.into_iter().flatten().map(|check| {
        let text = |field: &str| check[field].as_str().unwrap_or_default();
        (text("check_id"), text("resource"), text("check_name"))
    });
    Excuses::read()?.judge("checkov", found)
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
