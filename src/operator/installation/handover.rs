//! A name moves from one injection webhook to the next without a moment in which none selects it.
//!
//! Each webhook says in an annotation which names it selects. Who loses a name goes on selecting it
//! until the one that has it now does. In between both do, and whichever is asked injects for the
//! revision that has the name ([`crate::webhook::server`]): a pod gets one proxy, of one revision.
//!
//! Installations are reconciled one at a time, so that no two can give up a name at once, each because
//! it sees that the other still selects it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, Client, ResourceExt, api::ListParams, core::DeserializeGuard};

use crate::{
    api::meshwright::{
        MeshInstallation,
        labels::{INSTALLATION, MANAGED_BY, MANAGER, NAMES},
    },
    webhook::validate::names,
};

/// The other one's webhook is written within a moment, unless it is not valid.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// The names that the webhook of each installation selects.
pub type Selected = BTreeMap<String, BTreeSet<String>>;

/// Reads what injection webhooks select.
pub async fn selected(client: &Client) -> Result<Selected, kube::Error> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    Ok(told_by(&api.list_metadata(&ours).await?.items))
}

/// What these injection webhooks say that they select.
pub fn told_by<K: ResourceExt>(webhooks: &[K]) -> Selected {
    let mut selected = Selected::new();
    for webhook in webhooks {
        let Some(installation) = webhook.labels().get(INSTALLATION) else { continue };
        let names = webhook.annotations().get(NAMES).map(String::as_str).unwrap_or_default();
        let names = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned);
        selected.entry(installation.clone()).or_default().extend(names);
    }
    selected
}

/// The installations as they are now, as far as they can be read.
pub async fn installations(client: &Client) -> Result<Vec<Arc<MeshInstallation>>, kube::Error> {
    let api = Api::<DeserializeGuard<MeshInstallation>>::all(client.clone());
    let list = api.list(&ListParams::default()).await?;
    Ok(list.items.into_iter().filter_map(|guard| guard.0.ok()).map(Arc::new).collect())
}

/// Whether its webhook selects a name that it does not have any more.
pub fn gives_up(
    installation: &MeshInstallation,
    all: &[Arc<MeshInstallation>],
    selected: &Selected,
) -> bool {
    let has = |name: &String| {
        let tags = names::tags(installation, all.iter().map(AsRef::as_ref));
        installation.spec.revision == *name || tags.held.contains(name)
    };
    selected.get(&installation.name_any()).is_some_and(|own| !own.iter().all(has))
}

/// What its webhook selects now and must go on selecting: names that belong to another one, whose
/// webhook does not select them yet. The name, and the other one's. Who is being deleted selects no
/// more names: nothing waits for it, or two of them would wait for each other. `all` is as fresh as
/// can be; `installation`, which may be a moment older, is what the webhook is about to be made of.
pub fn kept(
    installation: &MeshInstallation,
    all: &[Arc<MeshInstallation>],
    selected: &Selected,
) -> Vec<(String, String)> {
    let me = installation.name_any();
    let spec = &installation.spec;
    let heir = |name: &String| {
        let holder = names::holder(name, all.iter().map(AsRef::as_ref))
            .filter(|holder| !names::is_leaving(holder))?
            .name_any();
        let done = if holder == me {
            spec.revision == *name || spec.tags.contains(name)
        } else {
            selected.get(&holder).is_some_and(|names| names.contains(name))
        };
        (!done).then(|| (name.clone(), holder))
    };
    selected.get(&me).into_iter().flatten().filter_map(heir).collect()
}
