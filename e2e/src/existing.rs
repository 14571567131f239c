//! The demo on a cluster that is there already: with images of a registry, or loaded into kind or k3d.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    args::DemoArgs,
    cache::Cache,
    cluster::Cluster,
    deploy::{self, Source},
    images, process, scenarios,
    steps::{Steps, seconds},
    tools::{self, Tool, Tools, find_program},
};

pub fn run(args: &DemoArgs, cache: &Cache) -> Result<()> {
    ensure!(
        args.action.is_none(),
        "down and reload are for throwaway clusters; in your own, use helm and kubectl"
    );
    let kubeconfig = args.kubeconfig.as_deref().context("no kubeconfig")?;
    let kubeconfig = fs::canonicalize(kubeconfig)
        .with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let mut steps = Steps::new();
    let tools = steps.run("tools are there", || tools::install(cache, &wanted()))?;
    let cluster = Cluster::existing(
        kubeconfig,
        program("kubectl", tools.node("kubectl")?),
        program("helm", tools.helm()?),
        cache.runs().join(".existing"),
    );
    steps.run("the cluster answers", || cluster.kubectl(&["get", "--raw=/readyz"]).map(drop))?;
    let (source, cluster) = provide_images(args, cache, &tools, cluster, &mut steps)?;
    deploy::gateway_api(&cluster, &tools, &mut steps)?;
    deploy::mesh(&cluster, &source, &mut steps)?;
    scenarios::demo(&cluster, &mut steps)?;
    let address = deploy::gateway_address(&cluster);
    steps.say(&format!(
        "\nThe mesh serves traffic, {} after the start.\n  gateway  {}\n  remove   helm uninstall meshwright -n {}",
        seconds(steps.elapsed()),
        address.map_or_else(
            || format!("kubectl port-forward -n {} deployment/ingress 8080:80", deploy::SYSTEM),
            |address| format!("http://{address}/")
        ),
        deploy::SYSTEM,
    ));
    Ok(())
}

/// The user's own kubectl and helm fit the cluster best; those that are missing are built.
fn wanted() -> Vec<Tool> {
    let mut wanted = vec![Tool::Envoy, Tool::GatewayApi];
    wanted.extend(find_program("kubectl").is_none().then_some(Tool::Node));
    wanted.extend(find_program("helm").is_none().then_some(Tool::Helm));
    wanted
}

fn program(name: &str, own: PathBuf) -> PathBuf {
    find_program(name).unwrap_or(own)
}

fn provide_images(
    args: &DemoArgs,
    cache: &Cache,
    tools: &Tools,
    cluster: Cluster,
    steps: &mut Steps,
) -> Result<(Source, Cluster)> {
    if let Some(registry) = &args.registry {
        let reference = |name: &str| format!("{registry}/{name}:{}", args.tag);
        let names = ["meshwright", "meshwright-proxy", "testapp"];
        let references = names.map(|name| (name.to_owned(), reference(name))).into();
        steps.say(&format!(
            "        images that the cluster must be able to pull: {}",
            names.map(reference).join(", ")
        ));
        let source = Source { registry: registry.clone(), tag: args.tag.clone() };
        let testapp = cache.target().join("release/meshwright-testapp");
        return Ok((source, cluster.with_images(references, testapp)));
    }
    let context = cluster.kubectl(&["config", "current-context"])?;
    let context = context.trim();
    let Some(load) = loader(context) else {
        bail!(
            "the cluster of {context} needs images that it can pull: build images/*.Containerfile (for \
             example `docker build -f images/meshwright.Containerfile -t REGISTRY/meshwright:latest .`, \
             the same for meshwright-proxy and testapp), push them, and pass --registry REGISTRY"
        );
    };
    let set = images::build(cache, tools, steps)?;
    let file = cache.images().join("archive.tar");
    steps.run(&format!("images are loaded into {context}"), || {
        images::save(&set.images, &file)?;
        process::run(&mut load(&file))
    })?;
    fs::remove_file(&file).ok();
    let source = Source { registry: images::REGISTRY.to_owned(), tag: set.tag.clone() };
    Ok((source, cluster.with_images(set.references(), set.testapp)))
}

/// How images get into the nodes of a local cluster, by the name that its tool gives the context.
fn loader(context: &str) -> Option<impl Fn(&Path) -> Command> {
    let kind = context.strip_prefix("kind-").map(|name| ("kind", name));
    let (tool, name) = kind.or_else(|| context.strip_prefix("k3d-").map(|name| ("k3d", name)))?;
    let name = name.to_owned();
    Some(move |file: &Path| {
        let mut command = Command::new(tool);
        match tool {
            "kind" => command.args(["load", "image-archive", "--name", &name]).arg(file),
            _ => command.args(["image", "import", "--cluster", &name]).arg(file),
        };
        command
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_clusters_are_known_by_their_context() {
        for (context, line) in [
            ("kind-x", Some("load image-archive --name x f")),
            ("k3d-y", Some("image import --cluster y f")),
            ("production", None),
        ] {
            let arguments = loader(context).map(|load| {
                let command = load(Path::new("f"));
                let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
                words.join(" ")
            });
            assert_eq!(arguments.as_deref(), line);
        }
    }
}
