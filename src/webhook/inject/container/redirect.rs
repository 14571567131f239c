//! The init container that sees to it that the pod's traffic goes through the proxy.

use k8s_openapi::api::core::v1::Container;

use super::{AGENT_PORT, REDIRECT_CONTAINER, environment, security};
use crate::{
    api::meshwright::{RedirectionBackend, RedirectionBy, RedirectionMode},
    webhook::inject::options::{Options, RedirectOptions},
};

/// The init container that redirects the pod's traffic, or waits until the node's CNI plugin has;
/// `None` where nothing is redirected.
pub fn redirect(options: &Options) -> Option<Container> {
    let mut args = vec!["redirect".to_owned()];
    let security = match (options.redirection.mode, options.redirection.by) {
        (RedirectionMode::None, _) => return None,
        (_, RedirectionBy::InitContainer) => security::redirect(),
        (_, RedirectionBy::Cni) => {
            args.push("--check".to_owned());
            security::unprivileged()
        }
    };
    args.extend(redirect_arguments(options));
    let env = environment::metadata(options);
    Some(Container {
        name: REDIRECT_CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: Some(options.image_pull_policy.clone()),
        args: Some(args),
        env: (!env.is_empty()).then_some(env),
        resources: Some(options.resources.clone()),
        security_context: Some(security),
        ..Container::default()
    })
}

/// What `meshwright redirect` is told, where it differs from what that does by itself. The node's
/// CNI plugin reads the same list from an annotation.
pub fn redirect_arguments(options: &Options) -> Vec<String> {
    let redirection = &options.redirection;
    let mode = match redirection.mode {
        RedirectionMode::Tproxy => "tproxy",
        RedirectionMode::Redirect | RedirectionMode::None => "redirect",
    };
    let backend = match redirection.backend {
        RedirectionBackend::Auto => "auto",
        RedirectionBackend::Nftables => "nftables",
        RedirectionBackend::Iptables => "iptables",
    };
    let exclude_inbound_ports = excluded_inbound_ports(options);
    let RedirectOptions { inbound_ports, outbound_cidrs, exclude_outbound_cidrs, .. } = redirection;
    let flags = [
        ("mode", mode, "redirect"),
        ("inbound-ports", inbound_ports, "*"),
        ("exclude-inbound-ports", &exclude_inbound_ports, ""),
        ("outbound-cidrs", outbound_cidrs, "*"),
        ("exclude-outbound-cidrs", exclude_outbound_cidrs, ""),
        ("outbound-ports", &redirection.outbound_ports, ""),
        ("exclude-outbound-ports", &redirection.exclude_outbound_ports, ""),
        ("interfaces", &redirection.interfaces, "*"),
        ("exclude-interfaces", &redirection.exclude_interfaces, ""),
        ("reroute-interfaces", &redirection.reroute_interfaces, ""),
        ("outbound-uids", &redirection.outbound_uids, "*"),
        ("exclude-outbound-uids", &redirection.exclude_outbound_uids, ""),
        ("outbound-gids", &redirection.outbound_gids, "*"),
        ("exclude-outbound-gids", &redirection.exclude_outbound_gids, ""),
        ("dns", if options.dns_capture { "resolvers" } else { "off" }, "off"),
        ("backend", backend, "auto"),
    ];
    let given = flags.into_iter().filter(|(_, value, default)| value != default);
    let mut arguments: Vec<_> = given.map(|(flag, value, _)| format!("--{flag}={value}")).collect();
    if redirection.drop_invalid {
        arguments.push("--drop-invalid".to_owned());
    }
    arguments
}

/// A health port of the pod's own choice is as little redirected as the usual one.
fn excluded_inbound_ports(options: &Options) -> String {
    let excluded = &options.redirection.exclude_inbound_ports;
    // The agent's port is left alone already.
    match options.readiness.port.filter(|port| i32::from(*port) != AGENT_PORT) {
        Some(port) if excluded.is_empty() => port.to_string(),
        Some(port) => format!("{excluded},{port}"),
        None => excluded.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(redirection: RedirectOptions) -> Options {
        Options { redirection, ..Options::default() }
    }

    #[test]
    fn what_redirect_does_by_itself_is_not_said() {
        assert!(redirect_arguments(&options(RedirectOptions::default())).is_empty());
    }

    #[test]
    fn says_what_differs() {
        let arguments = redirect_arguments(&Options {
            dns_capture: true,
            readiness: crate::webhook::inject::options::ReadinessOptions {
                port: Some(9000),
                ..Default::default()
            },
            ..options(RedirectOptions {
                mode: RedirectionMode::Tproxy,
                inbound_ports: String::new(),
                exclude_inbound_ports: "22".to_owned(),
                outbound_cidrs: "10.0.0.0/8".to_owned(),
                drop_invalid: true,
                ..RedirectOptions::default()
            })
        });
        assert_eq!(
            arguments,
            [
                "--mode=tproxy",
                "--inbound-ports=",
                "--exclude-inbound-ports=22,9000",
                "--outbound-cidrs=10.0.0.0/8",
                "--dns=resolvers",
                "--drop-invalid",
            ]
        );
    }

    #[test]
    fn with_mode_none_there_is_no_container() {
        let none = RedirectOptions { mode: RedirectionMode::None, ..RedirectOptions::default() };
        assert!(redirect(&options(none)).is_none());
    }
}
