//! Our containers and volumes as JSON. Most pods of a mesh want the same, so the last ones are kept.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde_json::Value;

use super::{
    Error,
    container::{self, ProxyIdentity, ProxySettings, Role},
    json::name_of,
    options::Options,
    plan::encode,
};

/// What one pod gets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Encoded {
    pub redirect: Option<Value>,
    pub proxy: Value,
    pub volumes: Value,
}

/// What was made last, and for what.
#[derive(Debug, Default)]
pub struct Memo(ArcSwapOption<Made>);

#[derive(Debug)]
struct Made {
    settings: ProxySettings,
    options: Options,
    role: Role,
    encoded: Encoded,
}

/// Whoever copies settings is about to change them.
impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// What has been made says nothing about what it was made of.
impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The containers and volumes of a proxy.
pub(super) fn encoded(
    settings: &ProxySettings,
    options: &Options,
    identity: &ProxyIdentity,
) -> Result<Encoded, Error> {
    let memo = &settings.memo.0;
    let role = identity.role;
    if let Some(made) = &*memo.load()
        && made.role == role
        && made.options == *options
        && made.settings == *settings
    {
        return Ok(made.encoded.clone().of_workload(&identity.workload));
    }
    let encoded = Encoded {
        redirect: container::redirect(options).as_ref().map(encode).transpose()?,
        proxy: encode(&container::proxy(settings, options, identity))?,
        volumes: encode(&container::volumes(options))?,
    };
    let (settings, options) = (settings.clone(), options.clone());
    memo.store(Some(Arc::new(Made { settings, options, role, encoded: encoded.clone() })));
    Ok(encoded)
}

impl Encoded {
    /// The name of the workload is all that is of the pod and not of its options.
    fn of_workload(mut self, workload: &str) -> Self {
        let env = self.proxy.get_mut("env").and_then(Value::as_array_mut).into_iter().flatten();
        let ours = |item: &&mut Value| name_of(item) == Some(container::WORKLOAD_ENV);
        for item in env.filter(ours) {
            item["value"] = container::escaped(workload).into();
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(role: Role, workload: &str) -> ProxyIdentity {
        ProxyIdentity { role, workload: workload.to_owned() }
    }

    #[test]
    fn what_is_kept_is_what_would_be_made() {
        let kept = ProxySettings::default();
        let mut options = Options::default();
        for (role, workload, drain_seconds) in [
            (Role::Sidecar, "web", 1),
            (Role::Sidecar, "$(cart)", 1),
            (Role::Router, "cart", 1),
            (Role::Router, "cart", 2),
            (Role::Sidecar, "cart", 2),
        ] {
            options.drain_seconds = drain_seconds;
            let identity = identity(role, workload);
            let fresh = encoded(&ProxySettings::default(), &options, &identity).unwrap();
            assert_eq!(encoded(&kept, &options, &identity).unwrap(), fresh);
            assert_eq!(encoded(&kept, &options, &identity).unwrap(), fresh);
        }
    }

    #[test]
    fn changed_settings_are_seen() {
        let mut settings = ProxySettings::default();
        let (options, identity) = (Options::default(), identity(Role::Sidecar, "web"));
        let before = encoded(&settings, &options, &identity).unwrap();
        settings.trust_domain = "other.test".to_owned();
        assert_ne!(encoded(&settings, &options, &identity).unwrap(), before);
    }
}
