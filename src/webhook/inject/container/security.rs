//! What the containers may do: as little as their work allows.

use k8s_openapi::api::core::v1::{Capabilities, SeccompProfile, SecurityContext};

use super::Role;
use crate::{
    api::meshwright::RedirectionMode,
    webhook::inject::{decide::PROXY_UID, options::Options},
};

/// The proxy's: no more than an ordinary program, unless the pod asks for what only root may do.
pub(super) fn proxy(options: &Options, role: Role) -> SecurityContext {
    let mut added = Vec::new();
    if role == Role::Sidecar && options.redirection.mode == RedirectionMode::Tproxy {
        added.push("NET_ADMIN".to_owned());
    }
    if options.net_bind_service {
        added.push("NET_BIND_SERVICE".to_owned());
    }
    if added.is_empty() {
        return unprivileged();
    }
    // Kubernetes gives capabilities to root only. The group tells its traffic from the application's.
    SecurityContext {
        run_as_user: Some(0),
        run_as_non_root: Some(false),
        capabilities: Some(capabilities(added)),
        ..unprivileged()
    }
}

/// That of the container which writes packet rules.
pub(super) fn redirect() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(0),
        run_as_group: Some(0),
        run_as_non_root: Some(false),
        // iptables keeps a lock file under /run.
        read_only_root_filesystem: Some(false),
        capabilities: Some(capabilities(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()])),
        ..unprivileged()
    }
}

/// What Kubernetes' pod security level `restricted` allows.
pub(super) fn unprivileged() -> SecurityContext {
    SecurityContext {
        run_as_user: Some(PROXY_UID),
        run_as_group: Some(PROXY_UID),
        run_as_non_root: Some(true),
        privileged: Some(false),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(capabilities(Vec::new())),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

fn capabilities(added: Vec<String>) -> Capabilities {
    Capabilities { add: (!added.is_empty()).then_some(added), drop: Some(vec!["ALL".to_owned()]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::meshwright::RedirectionBy,
        webhook::inject::{
            container::{self, ProxyIdentity, ProxySettings},
            options::RedirectOptions,
        },
    };

    /// What the level `restricted` holds against a container.
    fn violations(context: &SecurityContext) -> Vec<String> {
        let mut found = Vec::new();
        let mut hold = |good: bool, what: &str| {
            if !good {
                found.push(what.to_owned());
            }
        };
        hold(context.privileged != Some(true), "privileged");
        hold(context.allow_privilege_escalation == Some(false), "allowPrivilegeEscalation");
        hold(context.run_as_non_root == Some(true), "runAsNonRoot");
        hold(context.run_as_user != Some(0), "runAsUser");
        let profile = context.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
        hold(matches!(profile, Some("RuntimeDefault" | "Localhost")), "seccompProfile");
        let capabilities = context.capabilities.clone().unwrap_or_default();
        hold(capabilities.drop.is_some_and(|drop| drop.contains(&"ALL".to_owned())), "drop");
        for added in capabilities.add.unwrap_or_default() {
            hold(added == "NET_BIND_SERVICE", &added);
        }
        found
    }

    fn options(mode: RedirectionMode, by: RedirectionBy) -> Options {
        Options {
            redirection: RedirectOptions { mode, by, ..RedirectOptions::default() },
            ..Options::default()
        }
    }

    fn of_proxy(options: &Options, role: Role) -> Vec<String> {
        let identity = ProxyIdentity { role, workload: "web".to_owned() };
        let container = container::proxy(&ProxySettings::default(), options, &identity);
        violations(&container.security_context.unwrap())
    }

    fn of_redirect(options: &Options) -> Vec<String> {
        violations(&container::redirect(options).unwrap().security_context.unwrap())
    }

    #[test]
    fn with_the_cni_plugin_pods_are_restricted() {
        let options = options(RedirectionMode::Redirect, RedirectionBy::Cni);
        assert!(of_proxy(&options, Role::Sidecar).is_empty());
        assert!(of_redirect(&options).is_empty());
    }

    #[test]
    fn without_it_the_init_container_alone_is_not() {
        let options = options(RedirectionMode::Redirect, RedirectionBy::InitContainer);
        assert!(of_proxy(&options, Role::Sidecar).is_empty());
        assert_eq!(of_redirect(&options), ["runAsNonRoot", "runAsUser", "NET_ADMIN", "NET_RAW"]);
    }

    #[test]
    fn a_proxy_with_capabilities_is_root_with_these_alone() {
        let tproxy = options(RedirectionMode::Tproxy, RedirectionBy::Cni);
        assert_eq!(of_proxy(&tproxy, Role::Sidecar), ["runAsNonRoot", "runAsUser", "NET_ADMIN"]);
        assert!(of_proxy(&tproxy, Role::Router).is_empty(), "a gateway redirects nothing");
        let bind = Options { net_bind_service: true, ..Options::default() };
        assert_eq!(of_proxy(&bind, Role::Sidecar), ["runAsNonRoot", "runAsUser"]);
        assert_eq!(proxy(&bind, Role::Sidecar).run_as_group, Some(PROXY_UID));
    }
}
