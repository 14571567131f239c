//! Where `meshwright inject` gets its installation and the namespaces from: files, or the
//! cluster.

use std::path::Path;

use anyhow::{Context, bail};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Node},
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::Args;
use crate::{
    api::meshwright::MeshInstallation,
    cli::printer::Printer,
    diagnostic::Severity,
    operator::{
        installation::validate::inject_config,
        platform::{Images, OPERATOR, WebhookEndpoint},
    },
    runtime::kube_client,
    webhook::{
        inject::{self, InjectConfig, NativeSupport},
        validate::installation,
    },
};

/// What injection depends on beside the documents.
pub(super) struct Source {
    pub config: InjectConfig,
    /// None for one who works offline.
    client: Option<Client>,
}

impl Source {
    pub(super) async fn open(args: &Args, printer: &Printer) -> anyhow::Result<Self> {
        let client = match (&args.installation, &args.kubeconfig) {
            (Some(_), None) => None,
            (_, kubeconfig) => Some(kube_client(kubeconfig.as_deref()).await.context(
                "without a cluster, name the MeshInstallation with --installation FILE",
            )?),
        };
        let mut images = args.images.clone();
        if let Some(client) = &client {
            images = images.or(operator_images(client, args, printer).await);
        }
        let platform = images.platform(args.system_namespace.clone(), WebhookEndpoint::Service);
        let all = match (&args.installation, &client) {
            (Some(file), _) => vec![installation_of(file)?],
            (None, Some(client)) => installations(client).await?,
            (None, None) => Vec::new(),
        };
        let native = match &client {
            Some(client) => native_support(client, printer).await,
            None => NativeSupport::default(),
        };
        let configs = all.iter().map(|one| inject_config(one, all.iter(), &platform, &native));
        let wanted = |config: &InjectConfig| {
            args.installation.is_some() || config.answers_to(&args.revision)
        };
        let config = configs.into_iter().find(wanted).with_context(|| {
            format!("no MeshInstallation has the revision or the tag {}", args.revision)
        })?;
        Ok(Self { config, client })
    }

    /// A namespace of the cluster; none where there is no such namespace or no cluster.
    pub(super) async fn namespace(&self, name: &str) -> anyhow::Result<Option<inject::Namespace>> {
        let Some(client) = &self.client else { return Ok(None) };
        let found = Api::<Namespace>::all(client.clone())
            .get_metadata_opt(name)
            .await
            .with_context(|| format!("cannot read namespace {name}"))?;
        Ok(found
            .map(|found| inject::Namespace::new(name, found.labels().clone(), found.annotations())))
    }
}

fn installation_of(file: &Path) -> anyhow::Result<MeshInstallation> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let object: serde_json::Value = serde_saphyr::from_str(&text)
        .with_context(|| format!("{name} is not one YAML document"))?;
    if object["kind"] != "MeshInstallation" {
        bail!("{name} is not a MeshInstallation, its kind is {}", object["kind"]);
    }
    let found = installation::check_json(&object, std::iter::empty())
        .map_err(|problem| anyhow::anyhow!("{name}: {problem}"))?;
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<_> = errors.map(ToString::to_string).collect();
    if !errors.is_empty() {
        bail!("{name}: {}", errors.join("; "));
    }
    serde_json::from_value(object).with_context(|| format!("cannot read {name}"))
}

/// The oldest first, as they are served.
async fn installations(client: &Client) -> anyhow::Result<Vec<MeshInstallation>> {
    let api = Api::<MeshInstallation>::all(client.clone());
    let list = api.list(&ListParams::default()).await.context("cannot read MeshInstallations")?;
    let mut all = list.items;
    all.sort_by_key(|i| (i.creation_timestamp().map(|time| time.0), i.name_any()));
    Ok(all)
}

/// Which of the cluster's nodes have native sidecars.
async fn native_support(client: &Client, printer: &Printer) -> NativeSupport {
    match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => NativeSupport::of_nodes(&nodes.items),
        Err(error) => {
            printer.warn(&format!(
                "the versions of nodes are not known ({error}): all are taken to have native sidecars, unless the MeshInstallation says Classic in spec.proxy.sidecar"
            ));
            NativeSupport::default()
        }
    }
}

/// The images that the cluster's operator gives to pods.
async fn operator_images(client: &Client, args: &Args, printer: &Printer) -> Images {
    let api = Api::<Deployment>::namespaced(client.clone(), &args.system_namespace);
    match api.get(OPERATOR).await {
        Ok(operator) => Images::of_operator(&operator),
        Err(error) => {
            printer.warn(&format!(
                "the operator's images are not known ({error}): give them by --image-registry and --image-tag, or name its namespace with --system-namespace"
            ));
            Images::default()
        }
    }
}
