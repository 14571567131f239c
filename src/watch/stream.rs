//! One watch for each kind, kept up for as long as the process lives.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::{core::v1 as core, discovery::v1::EndpointSlice};
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::{
    changes::{Changes, Mailbox},
    kind::{Kind, key_of, trim_metadata},
    snapshot::Key,
    tables::{Edit, GATHER, Tables, run},
};
use crate::api::{
    gateway as gateway_api,
    istio::{networking, security},
    meshwright::MeshInstallation,
};

/// Between two looks for a kind whose definition is not installed.
const ABSENT_RETRY: Duration = Duration::from_secs(3);
/// Objects in one page of a list: what is decoded at a time is what memory peaks at.
const PAGE: u32 = 200;
/// Edits that may wait; a watch that is faster than the tables waits itself.
const QUEUE: usize = 1024;

/// Where a control plane looks.
#[derive(Clone, Debug)]
pub struct Scope {
    pub system_namespace: String,
    pub revision: String,
}

/// Starts all watches. Snapshots come to the mailbox as soon as every one of them has listed.
pub fn start(client: &Client, scope: &Scope) -> Mailbox {
    let (edits, received) = mpsc::channel(QUEUE);
    let mut watches = Watches { client: client.clone(), edits, count: 0 };
    watches.core::<core::Namespace>("");
    watches.core::<core::Node>("");
    watches.core::<core::Service>("");
    watches.core::<core::Pod>("");
    watches.core::<EndpointSlice>("");
    watches.core::<core::Secret>("type=kubernetes.io/tls");
    watches.custom::<networking::VirtualService>();
    watches.custom::<networking::DestinationRule>();
    watches.custom::<networking::Gateway>();
    watches.custom::<networking::ServiceEntry>();
    watches.custom::<security::PeerAuthentication>();
    watches.custom::<gateway_api::GatewayClass>();
    watches.custom::<gateway_api::Gateway>();
    watches.custom::<gateway_api::HttpRoute>();
    watches.custom::<gateway_api::ReferenceGrant>();
    watches.spawn::<DeserializeGuard<MeshInstallation>, MeshInstallation>(
        "",
        valid,
        Tables::set_installation,
        Tables::replace_installations,
    );
    let tables = Tables::new(&scope.system_namespace, &scope.revision, watches.count);
    let mailbox = Mailbox::default();
    tokio::spawn(run(tables, received, mailbox.clone(), GATHER));
    mailbox
}

struct Watches {
    client: Client,
    edits: mpsc::Sender<Edit>,
    count: usize,
}

impl Watches {
    /// A kind of the API server itself, which always decodes.
    fn core<K: Kind>(&mut self, fields: &'static str) {
        let trim = |object: K| Some(object.trim());
        self.spawn(fields, trim, Tables::set::<K>, Tables::replace::<K>);
    }

    /// A kind that users write, whose definition may be absent or not ours.
    fn custom<K: Kind>(&mut self) {
        let trim = |guard: DeserializeGuard<K>| valid(guard).map(K::trim);
        self.spawn("", trim, Tables::set::<K>, Tables::replace::<K>);
    }

    fn spawn<O, T>(
        &mut self,
        fields: &'static str,
        trim: fn(O) -> Option<T>,
        set: fn(&mut Tables, Key, Option<T>) -> Changes,
        replace: fn(&mut Tables, BTreeMap<Key, T>) -> Changes,
    ) where
        O: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
        T: Send + 'static,
    {
        self.count += 1;
        let watch = Watch {
            api: Api::<O>::all(self.client.clone()),
            fields,
            edits: self.edits.clone(),
            trim,
            set,
            replace,
            listed: false,
        };
        tokio::spawn(watch.run());
    }
}

/// An object that does not decode is as good as absent, and is named in the log. The others of its
/// kind are not its prisoners.
fn valid<K: Resource<DynamicType = ()>>(guard: DeserializeGuard<K>) -> Option<K> {
    match guard.0 {
        Ok(mut object) => {
            trim_metadata(object.meta_mut());
            Some(object)
        }
        Err(invalid) => {
            let (namespace, name) = (invalid.metadata.namespace, invalid.metadata.name);
            let error = invalid.error;
            tracing::warn!(kind = %K::kind(&()), ?namespace, ?name, error, "an object is not valid");
            None
        }
    }
}

struct Watch<O, T> {
    api: Api<O>,
    fields: &'static str,
    edits: mpsc::Sender<Edit>,
    trim: fn(O) -> Option<T>,
    set: fn(&mut Tables, Key, Option<T>) -> Changes,
    replace: fn(&mut Tables, BTreeMap<Key, T>) -> Changes,
    listed: bool,
}

impl<O, T> Watch<O, T>
where
    O: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    T: Send + 'static,
{
    async fn run(mut self) {
        let mut absent = false;
        while !self.edits.is_closed() {
            let listed = self.follow().await;
            if listed || !absent {
                tracing::info!(kind = %O::kind(&()), "not installed; looking for it now and then");
            }
            absent = true;
            // Gone, or never there: an absent kind is an empty one.
            self.replace_all(BTreeMap::new()).await;
            tokio::time::sleep(ABSENT_RETRY).await;
        }
    }

    /// Follows the kind until its definition turns out to be absent. Whether it was there before.
    async fn follow(&mut self) -> bool {
        let config = watcher::Config { page_size: Some(PAGE), ..watcher::Config::default() };
        let config = if self.fields.is_empty() { config } else { config.fields(self.fields) };
        let mut events = watcher::watcher(self.api.clone(), config).default_backoff().boxed();
        let (mut listing, mut listed) = (BTreeMap::new(), false);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitApply(object)) => {
                    let key = key_of(&object);
                    listing.extend((self.trim)(object).map(|trimmed| (key, trimmed)));
                }
                Ok(Event::InitDone) => {
                    listed = true;
                    self.replace_all(std::mem::take(&mut listing)).await;
                }
                Ok(Event::Apply(object)) => {
                    let key = key_of(&object);
                    let trimmed = (self.trim)(object);
                    self.set(key, trimmed).await;
                }
                Ok(Event::Delete(object)) => self.set(key_of(&object), None).await,
                Err(error) if is_absent(&error) => return listed,
                Err(error) => {
                    tracing::warn!(kind = %O::kind(&()), %error, "watch failed, retrying");
                }
            }
        }
        listed
    }

    async fn set(&self, key: Key, object: Option<T>) {
        let set = self.set;
        self.edit(Box::new(move |tables| set(tables, key, object))).await;
    }

    async fn replace_all(&mut self, objects: BTreeMap<Key, T>) {
        let replace = self.replace;
        let first = !std::mem::replace(&mut self.listed, true);
        let edit = move |tables: &mut Tables| {
            if first {
                tables.listed();
            }
            replace(tables, objects)
        };
        self.edit(Box::new(edit)).await;
    }

    async fn edit(&self, edit: Edit) {
        // The tables outlive the watches, but for the moment in which the process ends.
        drop(self.edits.send(edit).await);
    }
}

fn is_absent(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 404,
        _ => false,
    }
}
