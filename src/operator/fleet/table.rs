//! The pods with proxies, as small as they can be. Without I/O: events of a watch in, proxies out.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use kube::{ResourceExt, runtime::watcher::Event};

use super::{
    image::Pin,
    pod::{self, InjectedPod},
    proxy::{Configuration, Proxy, ProxyKind, Workload},
};
use crate::api::meshwright::labels::REVISION;

/// All pods that carry the label of a revision, by uid.
#[derive(Debug, Default)]
pub struct Table {
    pods: HashMap<Box<str>, Entry>,
    /// A list in progress, which replaces `pods`.
    listing: HashMap<Box<str>, Entry>,
    listed: bool,
    texts: Interner<str>,
    pins: Interner<Pin>,
}

#[derive(Debug, PartialEq)]
enum Entry {
    Proxy(Record),
    /// It has ended, or has no proxy: a label alone makes none.
    Other,
}

/// A proxy, of which many share most strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub namespace: Arc<str>,
    pub pod: Box<str>,
    pub revision: Arc<str>,
    /// Kind and name.
    pub workload: Option<(Arc<str>, Arc<str>)>,
    pub kind: ProxyKind,
    pub image: Arc<str>,
    /// The image that the pod itself asks for.
    pub pin: Option<Arc<Pin>>,
    pub ready: bool,
}

impl Table {
    pub fn see(&mut self, event: Event<InjectedPod>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pod) => {
                let (uid, entry) = self.entry(&pod);
                self.listing.insert(uid, entry);
            }
            Event::InitDone => {
                self.pods = std::mem::take(&mut self.listing);
                self.listed = true;
                self.texts.prune();
                self.pins.prune();
            }
            Event::Apply(pod) => {
                let (uid, entry) = self.entry(&pod);
                self.pods.insert(uid, entry);
            }
            Event::Delete(pod) => {
                self.pods.remove(pod.uid().unwrap_or_default().as_str());
            }
        }
    }

    /// Whether all pods have been listed once.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Whether a pod was seen before.
    pub fn knows(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// All proxies, with their pods' uids, in no order.
    pub fn records(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.pods.iter().filter_map(|(uid, entry)| match entry {
            Entry::Proxy(record) => Some((&**uid, record)),
            Entry::Other => None,
        })
    }

    fn entry(&mut self, pod: &InjectedPod) -> (Box<str>, Entry) {
        let uid = pod.uid().unwrap_or_default().into();
        let record = if pod.is_over() { None } else { self.record(pod) };
        (uid, record.map_or(Entry::Other, Entry::Proxy))
    }

    fn record(&mut self, pod: &InjectedPod) -> Option<Record> {
        let (container, kind) = pod.proxy()?;
        let text = |text: &str, texts: &mut Interner<str>| texts.shared(text);
        let texts = &mut self.texts;
        let workload = pod::workload(&pod.metadata);
        Some(Record {
            namespace: text(pod.metadata.namespace.as_deref().unwrap_or_default(), texts),
            pod: pod.metadata.name.as_deref().unwrap_or_default().into(),
            revision: text(pod.labels().get(REVISION)?, texts),
            workload: workload.map(|(kind, name)| (text(kind, texts), text(name, texts))),
            kind,
            image: text(&container.image, texts),
            pin: Pin::of(pod).map(|pin| self.pins.shared(pin)),
            ready: pod.is_ready(),
        })
    }
}

impl Record {
    /// The whole proxy.
    pub fn proxy(
        &self,
        uid: &str,
        configuration: Configuration,
        certificate_ends: Option<k8s_openapi::jiff::Timestamp>,
    ) -> Proxy {
        let workload = |(kind, name): &(Arc<str>, Arc<str>)| Workload {
            kind: kind.to_string(),
            namespace: self.namespace.to_string(),
            name: name.to_string(),
        };
        Proxy {
            namespace: self.namespace.to_string(),
            pod: self.pod.to_string(),
            uid: uid.to_owned(),
            revision: self.revision.to_string(),
            workload: self.workload.as_ref().map(workload),
            kind: self.kind,
            image: self.image.to_string(),
            ready: self.ready,
            configuration,
            certificate_ends,
        }
    }
}

/// Equal values, once.
#[derive(Debug)]
pub(super) struct Interner<T: ?Sized> {
    values: HashSet<Arc<T>>,
    /// How many there may be before those are looked for that nobody has any more.
    limit: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { values: HashSet::new(), limit: 256 }
    }
}

impl<T: Eq + Hash + ?Sized> Interner<T> {
    pub(super) fn shared<V>(&mut self, value: V) -> Arc<T>
    where
        V: AsRef<T> + Into<Arc<T>>,
    {
        if let Some(known) = self.values.get(value.as_ref()) {
            return known.clone();
        }
        if self.values.len() >= self.limit {
            self.prune();
        }
        let shared: Arc<T> = value.into();
        self.values.insert(shared.clone());
        shared
    }

    pub(super) fn prune(&mut self) {
        self.values.retain(|value| Arc::strong_count(value) > 1);
        self.limit = (self.values.len() * 2).max(256);
    }
}

#[cfg(test)]
mod tests;
