//! The volumes of the proxy.

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
    EmptyDirVolumeSource, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};

use super::{BOOTSTRAP_VOLUME, IDENTITY_VOLUME, POD_INFO_VOLUME, ROOT_CONFIG_MAP, RUN_VOLUME};
use crate::webhook::inject::options::Options;

const TOKEN_AUDIENCE: &str = "meshwright-ca";
const TOKEN_SECONDS: i64 = 43_200;
const RUN_PATH: &str = "/var/run/meshwright";
const IDENTITY_PATH: &str = "/var/run/secrets/meshwright";
const POD_INFO_PATH: &str = "/etc/meshwright/pod";
const BOOTSTRAP_PATH: &str = "/etc/meshwright/bootstrap";
/// Our volumes, with where they are mounted.
const RESERVED: [(&str, &str); 4] = [
    (RUN_VOLUME, RUN_PATH),
    (IDENTITY_VOLUME, IDENTITY_PATH),
    (POD_INFO_VOLUME, POD_INFO_PATH),
    (BOOTSTRAP_VOLUME, BOOTSTRAP_PATH),
];

/// The part of the bootstrap that a pod brings, if the ConfigMap has the key that Istio's has.
pub(super) fn bootstrap_file() -> String {
    format!("{BOOTSTRAP_PATH}/custom_bootstrap.json")
}

/// Whether a volume of this name is ours.
pub fn is_reserved_volume(name: &str) -> bool {
    RESERVED.iter().any(|(volume, _)| *volume == name)
}

/// Whether one of ours is mounted there, or above or below.
pub fn is_reserved_path(path: &str) -> bool {
    let holds = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let path = path.trim_end_matches('/');
    RESERVED.iter().any(|(_, ours)| holds(ours, path) || holds(path, ours))
}

/// The volumes that the proxy mounts, the user's among them.
pub fn volumes(options: &Options) -> Vec<Volume> {
    let mut volumes = vec![run(), identity(), pod_info()];
    volumes.extend(options.bootstrap_override.as_deref().map(bootstrap));
    volumes.extend(options.volumes.iter().cloned());
    volumes
}

pub(super) fn mounts(options: &Options) -> Vec<VolumeMount> {
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let mut mounts = vec![
        mount(RUN_VOLUME, RUN_PATH, false),
        mount(IDENTITY_VOLUME, IDENTITY_PATH, true),
        mount(POD_INFO_VOLUME, POD_INFO_PATH, true),
    ];
    if options.bootstrap_override.is_some() {
        mounts.push(mount(BOOTSTRAP_VOLUME, BOOTSTRAP_PATH, true));
    }
    mounts.extend(options.volume_mounts.iter().cloned());
    mounts
}

fn run() -> Volume {
    Volume {
        name: RUN_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: None,
        }),
        ..Volume::default()
    }
}

fn identity() -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(TOKEN_AUDIENCE.to_owned()),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let root = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: ROOT_CONFIG_MAP.to_owned(),
            items: Some(vec![KeyToPath {
                key: "root-cert.pem".to_owned(),
                path: "root-cert.pem".to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: IDENTITY_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o644),
            sources: Some(vec![token, root]),
        }),
        ..Volume::default()
    }
}

/// By the downward API and not by the environment: so a template is the same for all its pods.
fn pod_info() -> Volume {
    let file = |name: &str| DownwardAPIVolumeFile {
        path: name.to_owned(),
        field_ref: Some(ObjectFieldSelector {
            api_version: Some("v1".to_owned()),
            field_path: format!("metadata.{name}"),
        }),
        ..DownwardAPIVolumeFile::default()
    };
    Volume {
        name: POD_INFO_VOLUME.to_owned(),
        downward_api: Some(DownwardAPIVolumeSource {
            default_mode: Some(0o644),
            items: Some(vec![file("labels"), file("annotations")]),
        }),
        ..Volume::default()
    }
}

fn bootstrap(config_map: &str) -> Volume {
    Volume {
        name: BOOTSTRAP_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.to_owned(),
            default_mode: Some(0o644),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_paths_are_reserved_with_what_is_above_and_below() {
        for path in ["/", "/var/run", "/var/run/meshwright", "/etc/meshwright/pod/", "/etc"] {
            assert!(is_reserved_path(path), "{path}");
        }
        for path in ["/var/run/meshwright-own", "/etc/certs", "/data"] {
            assert!(!is_reserved_path(path), "{path}");
        }
    }
}
