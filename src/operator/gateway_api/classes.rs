//! The GatewayClasses that there are: whose Gateways are ours, and with what parameters.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use kube::ResourceExt;

use crate::api::gateway::{CONTROLLER_NAME, GatewayClass, class::ParametersReference};

/// A class by its controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Ours(Option<ParametersReference>),
    /// Another implementation serves it.
    Foreign,
}

/// The classes by name.
#[derive(Debug, Default)]
pub(super) struct Classes(Mutex<HashMap<String, Class>>);

impl Classes {
    pub(super) fn get(&self, name: &str) -> Option<Class> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    pub(super) fn set(&self, class: &GatewayClass) {
        let ours = class.spec.controller_name == CONTROLLER_NAME;
        let known =
            if ours { Class::Ours(class.spec.parameters_ref.clone()) } else { Class::Foreign };
        let mut classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        classes.insert(class.name_any(), known);
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Forgets all that a new list did not name.
    pub(super) fn keep(&self, names: &[String]) {
        let mut classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        classes.retain(|name, _| names.contains(name));
    }

    /// The classes of ours whose parameters are in this ConfigMap.
    pub(super) fn with_parameters(&self, namespace: &str, name: &str) -> Vec<String> {
        let classes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = |class: &Class| {
            matches!(class, Class::Ours(Some(reference))
                if reference.name == name && reference.namespace.as_deref() == Some(namespace))
        };
        classes.iter().filter(|(_, class)| named(class)).map(|(name, _)| name.clone()).collect()
    }
}
