//! The project's images, from what cargo builds and what this machine has.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Image, Set, closure,
    layer::{Files, Layer},
};
use crate::{
    cache::{Cache, project},
    lock::Lock,
    process,
    steps::Steps,
    tools::{Tools, find_program},
};

/// Numeric user of everything that needs no rights.
const NOBODY: &str = "65532:65532";

/// Runs on nodes, whose libraries are unknown.
const CNI_PLUGIN: &str = "meshwright-cni";
const CNI_DAEMON: &str = "meshwright-cni-daemon";

/// What redirection runs beside iptables. `ip` gives the loopback of an IPv6 pod the address from
/// which Envoy reaches the application; `nsenter` takes the CNI daemon into pods.
const TOOLS: [(&str, &str); 3] =
    [("nft", "nftables"), ("ip", "iproute2"), ("nsenter", "util-linux")];

/// Compiles the mesh and the test application, and packs them.
pub fn build(cache: &Cache, tools: &Tools, steps: &mut Steps) -> Result<Set> {
    // Another checkout's build writes to the same paths.
    let _lock = Lock::take(&cache.root().join("target.lock"), |holder| {
        steps.say(&format!("        waiting for process {}, which builds", holder.pid));
    })?;
    steps.run("cargo build", || {
        let log = cache.logs().join("cargo-build.log");
        let mut command = cargo(cache);
        command.args(["build", "--release", "--package", "meshwright"]);
        command.args(["--package", "meshwright-testapp"]);
        for program in ["meshwright", "meshwright-proxy", CNI_DAEMON, "meshwright-testapp"] {
            command.args(["--bin", program]);
        }
        process::logged(&mut command, &log)
    })?;
    steps.run("cargo builds the CNI plugin, without libraries", || {
        // The flag is for this one program, so that everything it is made of is built already.
        let log = cache.logs().join("cargo-cni.log");
        let mut command = cargo(cache);
        command.args(["rustc", "--release", "--package", "meshwright", "--bin", CNI_PLUGIN]);
        process::logged(command.args(["--", "-C", "target-feature=+crt-static"]), &log)
    })?;
    steps.run("images are packed", || pack(cache, tools))
}

/// Cargo with this project's own target folder, as if it was not started by another cargo.
pub fn cargo(cache: &Cache) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
            || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_TERM_COLOR", "never");
    command.env("CARGO_TARGET_DIR", cache.target()).current_dir(project());
    command
}

fn pack(cache: &Cache, tools: &Tools) -> Result<Set> {
    let built = |name: &str| cache.target().join("release").join(name);
    let (mesh, app, envoy) = (built("meshwright"), built("meshwright-testapp"), tools.envoy()?);
    let (proxy, daemon) = (built("meshwright-proxy"), built(CNI_DAEMON));
    let base = base(&[mesh.clone(), app.clone(), envoy.clone(), daemon.clone()])?.layer(cache)?;
    let redirection = redirection()?.layer(cache)?;
    let envoy = single("envoy", &envoy, false).layer(cache)?;
    let mesh = single("meshwright", &mesh, true).layer(cache)?;
    // A part of the same program, under the same name.
    let proxy = single("meshwright", &proxy, true).layer(cache)?;
    let mut cni = single(CNI_DAEMON, &daemon, true);
    cni.program(&format!("usr/local/bin/{CNI_PLUGIN}"), &built(CNI_PLUGIN));
    let cni = cni.layer(cache)?;
    let sample = single("testapp", &app, true).layer(cache)?;
    let tag = Image::shared_tag([&base, &redirection, &envoy, &mesh, &proxy, &cni]);
    let image = |name: &str, tag: &str, layers: &[&Layer], program: &str, user: &str| Image {
        name: name.to_owned(),
        tag: tag.to_owned(),
        layers: layers.iter().map(|&layer| layer.clone()).collect(),
        entrypoint: format!("/usr/local/bin/{program}"),
        user: user.to_owned(),
    };
    let images = vec![
        image("meshwright", &tag, &[&base, &mesh], "meshwright", NOBODY),
        // The same under another name: to a pod, a new version.
        image(
            "meshwright-proxy-next",
            &tag,
            &[&base, &redirection, &envoy, &proxy, &cni],
            "meshwright",
            "",
        ),
        image(
            "meshwright-proxy",
            &tag,
            &[&base, &redirection, &envoy, &proxy, &cni],
            "meshwright",
            "",
        ),
        image(
            "testapp",
            &Image::shared_tag([&base, &sample]),
            &[&base, &sample],
            "testapp",
            NOBODY,
        ),
    ];
    Ok(Set { images, tag, testapp: keep(cache, &app)? })
}

/// A copy that the next build does not overwrite while pods and tests run from it.
fn keep(cache: &Cache, program: &Path) -> Result<PathBuf> {
    let kept = cache.images().join("testapp");
    let new = cache.images().join(format!(".testapp-{}", std::process::id()));
    fs::copy(program, &new).with_context(|| format!("cannot copy {}", program.display()))?;
    fs::rename(new, &kept)?;
    Ok(kept)
}

/// The image that holds a pod's namespaces open.
pub fn pause(cache: &Cache, tools: &Tools) -> Result<Image> {
    let layer = single("pause", &tools.pause()?, false).layer(cache)?;
    Ok(Image {
        name: "pause".to_owned(),
        tag: "1".to_owned(),
        layers: vec![layer],
        entrypoint: "/usr/local/bin/pause".to_owned(),
        user: NOBODY.to_owned(),
    })
}

fn single(name: &str, program: &Path, strip: bool) -> Files {
    let mut files = Files::default();
    let path = format!("usr/local/bin/{name}");
    if strip {
        files.program(&path, program);
    } else {
        files.file(&path, program);
    }
    files
}

/// What every image stands on: libraries, and the few files that libraries read.
fn base(programs: &[PathBuf]) -> Result<Files> {
    let mut files = Files::default();
    for (path, mode) in [("etc", 0o755), ("run", 0o755), ("tmp", 0o1777), ("var", 0o755)] {
        files.folder(path, mode);
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        files.folder(&format!("usr/{name}"), 0o755);
        files.link(name, &format!("usr/{name}"));
    }
    files.link("var/run", "/run");
    files.text(
        "etc/passwd",
        "root:x:0:0:root:/:/sbin/nologin\nproxy:x:1337:1337:proxy:/:/sbin/nologin\n\
         nobody:x:65532:65532:nobody:/:/sbin/nologin\n",
    );
    files.text("etc/group", "root:x:0:\nproxy:x:1337:\nnobody:x:65532:\n");
    files.text("etc/nsswitch.conf", "hosts: files dns\n");
    let libraries = closure::libraries(programs)?;
    closure::add(&mut files, resolver(&libraries));
    closure::add(&mut files, libraries);
    Ok(files)
}

/// glibc before 2.34 loads its resolver at run time, so `ldd` does not list it.
fn resolver(libraries: &std::collections::BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let folder = libraries
        .iter()
        .find(|path| path.file_name().is_some_and(|name| name == "libc.so.6"))
        .and_then(|libc| libc.parent());
    ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"]
        .iter()
        .filter_map(|name| Some(folder?.join(name)))
        .filter(|path| path.is_file())
        .collect()
}

/// iptables in both its kinds, nft, their modules, and what else changes a pod's network.
fn redirection() -> Result<Files> {
    let mut files = Files::default();
    let restore = find_program("iptables-restore").context("iptables is missing: install it")?;
    let default = fs::canonicalize(&restore)?;
    let folder = default.parent().context("iptables is in no folder")?;
    let mut programs = Vec::new();
    for kind in ["nft", "legacy"] {
        let program = folder.join(format!("xtables-{kind}-multi"));
        if !program.is_file() {
            continue;
        }
        let target = format!("xtables-{kind}-multi");
        files.file(&format!("usr/sbin/{target}"), &program);
        for name in ["iptables", "ip6tables"] {
            for verb in ["", "-restore", "-save"] {
                files.link(&format!("usr/sbin/{name}-{kind}{verb}"), &target);
                // The first kind there is, nft, is what the plain name means.
                let plain = format!("usr/sbin/{name}{verb}");
                if !files.contains(&plain) {
                    files.link(&plain, &target);
                }
            }
        }
        programs.push(program);
    }
    for (name, package) in TOOLS {
        let program =
            find_program(name).with_context(|| format!("{name} is missing: install {package}"))?;
        files.file(&format!("usr/sbin/{name}"), &program);
        programs.push(program);
    }
    let modules = modules()?;
    programs.extend(modules.iter().cloned());
    closure::add(&mut files, closure::libraries(&programs)?);
    closure::add(&mut files, modules);
    Ok(files)
}

/// The extensions that iptables loads by name; it looks where it was told when it was built.
fn modules() -> Result<Vec<PathBuf>> {
    let arch = env::consts::ARCH;
    let folders = [
        format!("/usr/lib/{arch}-linux-gnu/xtables"),
        "/usr/lib64/xtables".to_owned(),
        "/usr/lib/xtables".to_owned(),
    ];
    let folder =
        folders.iter().map(Path::new).find(|folder| folder.is_dir()).context(
            "the modules of iptables are in no folder that is known: install iptables anew",
        )?;
    let mut modules: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.retain(|path| path.extension().is_some_and(|extension| extension == "so"));
    modules.sort();
    Ok(modules)
}
