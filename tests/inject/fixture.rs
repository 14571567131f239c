//! What the injection tests share.

#![allow(dead_code, reason = "each test takes what it needs")]

use meshwright::{
    api::meshwright::MeshInstallationSpec,
    webhook::inject::{InjectConfig, Namespace, ProxySettings},
};

pub fn config() -> InjectConfig {
    InjectConfig {
        revision: "default".to_owned(),
        system_namespace: "meshwright-system".to_owned(),
        istio_labels: true,
        proxy: ProxySettings::new(
            &MeshInstallationSpec::default(),
            "registry.test/meshwright-proxy:1".to_owned(),
            "IfNotPresent",
            "meshwright-control-plane.meshwright-system.svc:15012".to_owned(),
        ),
    }
}

pub fn namespace() -> Namespace {
    Namespace {
        name: "shop".to_owned(),
        labels: [("meshwright.dev/injection".to_owned(), "enabled".to_owned())].into(),
    }
}
