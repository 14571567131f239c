//! What makes the controller look at a Gateway: the Gateway itself, what was made for it, its class,
//! the ConfigMaps that it refers to, and the installations.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event, watcher},
    },
};

use super::{
    Gateways,
    children::{Child, GatewayRef},
};
use crate::{
    api::{
        gateway::{Gateway, GatewayClass},
        meshwright::labels::{MANAGED_BY, MANAGER},
    },
    operator::context::changes,
};

pub(super) type Object = DeserializeGuard<Gateway>;
type Requests = Pin<Box<dyn Stream<Item = GatewayRef> + Send>>;

/// All of it.
pub(super) fn requests(
    gateways: &Arc<Gateways>,
    store: &Store<Object>,
    writer: Writer<Object>,
) -> impl Stream<Item = GatewayRef> + Send + use<> {
    stream::select_all(vec![
        own(gateways, writer),
        of_children::<ServiceAccount>(gateways),
        of_children::<Service>(gateways),
        of_children::<Deployment>(gateways),
        of_children::<HorizontalPodAutoscaler>(gateways),
        of_children::<PodDisruptionBudget>(gateways),
        of_classes(gateways, store),
        of_parameters(gateways, store),
        of_installations(gateways, store),
    ])
}

fn own(gateways: &Gateways, writer: Writer<Object>) -> Requests {
    let api = Api::<Object>::all(gateways.context.client.clone());
    watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|gateway| gateway.managed_fields_mut().clear())
        .reflect(writer)
        .touched_objects()
        .filter_map(|found| async move {
            match found {
                Ok(gateway) => Some(ObjectRef::from_obj(&gateway)),
                Err(error) => {
                    tracing::warn!(%error, "cannot watch Gateways");
                    None
                }
            }
        })
        .boxed()
}

fn of_children<K>(gateways: &Arc<Gateways>) -> Requests
where
    K: Child + Send + Sync + 'static,
{
    let gateways = gateways.clone();
    let ours = watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    watcher(Api::<K>::all(gateways.context.client.clone()), ours)
        .default_backoff()
        .map(move |event| child_event(&gateways, event))
        .map(stream::iter)
        .flatten()
        .boxed()
}

fn child_event<K: Child>(gateways: &Gateways, event: watcher::Result<Event<K>>) -> Vec<GatewayRef> {
    let children = &gateways.children;
    match event {
        Ok(Event::Init) => {
            children.begin(K::KIND);
            Vec::new()
        }
        Ok(Event::InitApply(object) | Event::Apply(object)) => {
            children.observe(&object).into_iter().collect()
        }
        Ok(Event::Delete(object)) => children.forget(&object).into_iter().collect(),
        Ok(Event::InitDone) => {
            let gone = children.end(K::KIND);
            gateways.listed(K::KIND);
            gone
        }
        Err(error) => {
            tracing::warn!(kind = K::KIND.as_str(), %error, "cannot watch what Gateways have");
            Vec::new()
        }
    }
}

fn of_classes(gateways: &Arc<Gateways>, store: &Store<Object>) -> Requests {
    let (gateways, store) = (gateways.clone(), store.clone());
    let api = Api::<GatewayClass>::all(gateways.context.client.clone());
    let mut listed: Vec<String> = Vec::new();
    watcher(api, watcher::Config::default())
        .default_backoff()
        .map(move |event| class_event(&gateways, &store, &mut listed, event))
        .map(stream::iter)
        .flatten()
        .boxed()
}

fn class_event(
    gateways: &Gateways,
    store: &Store<Object>,
    listed: &mut Vec<String>,
    event: watcher::Result<Event<GatewayClass>>,
) -> Vec<GatewayRef> {
    match event {
        Ok(Event::Init) => listed.clear(),
        Ok(Event::InitApply(class)) => {
            gateways.classes.set(&class);
            listed.push(class.name_any());
        }
        Ok(Event::Apply(class)) => {
            let name = class.name_any();
            // Its status changes with each of its Gateways.
            let before = gateways.classes.get(&name);
            gateways.classes.set(&class);
            if before != gateways.classes.get(&name) {
                return matching(store, |gateway| gateway.spec.gateway_class_name == name);
            }
        }
        Ok(Event::Delete(class)) => {
            gateways.classes.remove(&class.name_any());
            if class.name_any() == super::CLASS {
                gateways.class_gone.notify_one();
            }
        }
        Ok(Event::InitDone) => {
            gateways.classes.keep(listed);
            gateways.classes_known.send_replace(true);
            return matching(store, |_| true);
        }
        Err(error) => tracing::warn!(%error, "cannot watch GatewayClasses"),
    }
    Vec::new()
}

/// Of ConfigMaps, of which there are many, only the names are watched.
fn of_parameters(gateways: &Arc<Gateways>, store: &Store<Object>) -> Requests {
    let (gateways, store) = (gateways.clone(), store.clone());
    let api = Api::<PartialObjectMeta<ConfigMap>>::all(gateways.context.client.clone());
    let mut known = false;
    watcher(api, watcher::Config::default())
        .default_backoff()
        .map(move |event| match event {
            Ok(Event::Apply(map) | Event::Delete(map)) => of_parameter(&gateways, &store, &map),
            // The first list only says what has not been read yet.
            Ok(Event::InitDone) => {
                let again = std::mem::replace(&mut known, true);
                gateways.parameters.all_changed();
                if again { matching(&store, |_| true) } else { Vec::new() }
            }
            Ok(Event::Init | Event::InitApply(_)) => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "cannot watch the ConfigMaps that parametersRef may name");
                Vec::new()
            }
        })
        .map(stream::iter)
        .flatten()
        .boxed()
}

fn of_parameter(
    gateways: &Gateways,
    store: &Store<Object>,
    map: &PartialObjectMeta<ConfigMap>,
) -> Vec<GatewayRef> {
    let place = (map.namespace().unwrap_or_default(), map.name_any());
    gateways.parameters.changed(&place);
    let classes = gateways.classes.with_parameters(&place.0, &place.1);
    matching(store, |gateway| {
        let infrastructure = gateway.spec.infrastructure.as_ref();
        let reference =
            infrastructure.and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
        let own = reference.is_some_and(|reference| {
            reference.name == place.1 && gateway.namespace().as_ref() == Some(&place.0)
        });
        own || classes.contains(&gateway.spec.gateway_class_name)
    })
}

fn of_installations(gateways: &Gateways, store: &Store<Object>) -> Requests {
    let store = store.clone();
    changes(gateways.context.changed.clone())
        .map(move |()| stream::iter(matching(&store, |_| true)))
        .flatten()
        .boxed()
}

fn matching(store: &Store<Object>, wanted: impl Fn(&Gateway) -> bool) -> Vec<GatewayRef> {
    let all = store.state();
    let matching = all.iter().filter(|object| object.0.as_ref().is_ok_and(&wanted));
    matching.map(|object| ObjectRef::from_obj(&**object)).collect()
}
