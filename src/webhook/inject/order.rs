//! Where our containers stand among the user's: they start in this order.

use serde_json::{Map, Value};

use super::{
    container::{PROXY_CONTAINER, REDIRECT_CONTAINER, Role},
    json::name_of,
    layers::Shape,
    options::Options,
};
use crate::api::meshwright::RedirectionBy;

/// Puts our containers into their places.
pub(super) fn arrange(spec: &mut Map<String, Value>, shape: Shape, options: &Options) {
    let Some(role) = shape.role else { return };
    let native = role == Role::Sidecar && shape.native;
    if native {
        move_first(spec, "initContainers", PROXY_CONTAINER);
    }
    // Without a proxy beside them, the user's init containers must reach the network directly: the
    // rules come last. A check changes nothing, and fails early.
    if native || options.redirection.by == RedirectionBy::Cni {
        move_first(spec, "initContainers", REDIRECT_CONTAINER);
    } else {
        move_last(spec, "initContainers", REDIRECT_CONTAINER);
    }
    // The kubelet starts containers one after the other and waits for the hook of each.
    if role == Role::Router || options.hold {
        move_first(spec, "containers", PROXY_CONTAINER);
    } else {
        move_last(spec, "containers", PROXY_CONTAINER);
    }
}

fn move_first(spec: &mut Map<String, Value>, field: &str, name: &str) {
    if let Some((items, position)) = find(spec, field, name) {
        items[..=position].rotate_right(1);
    }
}

fn move_last(spec: &mut Map<String, Value>, field: &str, name: &str) {
    if let Some((items, position)) = find(spec, field, name) {
        items[position..].rotate_left(1);
    }
}

fn find<'a>(
    spec: &'a mut Map<String, Value>,
    field: &str,
    name: &str,
) -> Option<(&'a mut Vec<Value>, usize)> {
    let items = spec.get_mut(field)?.as_array_mut()?;
    let position = items.iter().position(|item| name_of(item) == Some(name))?;
    Some((items, position))
}
