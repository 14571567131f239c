//! The container with agent and Envoy.

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, ExecAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    HEALTH_PORT, PROXY_CONTAINER, ProxyIdentity, ProxySettings, Role, environment, security,
    volumes,
};
use crate::webhook::inject::options::Options;

const METRICS_PORT: i32 = 15090;
const BINARY: &str = "/usr/local/bin/meshwright";

/// How the kubelet learns that the sidecar has started and is ready. The application's containers
/// start after the hook or the startup probe, so the choice sets how much later a pod is Ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Startup {
    /// A hook in the container that returns as soon as the agent is ready: no polling by the kubelet.
    PostStartHook,
    /// A probe by the kubelet, once a second at best.
    StartupProbe,
}

const SIDECAR_STARTUP: Startup = Startup::PostStartHook;

/// The container with agent and Envoy. A native sidecar is an init container that stays.
pub fn proxy(settings: &ProxySettings, options: &Options, identity: &ProxyIdentity) -> Container {
    let sidecar = identity.role == Role::Sidecar;
    let awaited = sidecar && (options.native || options.hold);
    let startup = |kind| awaited && SIDECAR_STARTUP == kind;
    Container {
        name: PROXY_CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: Some(options.image_pull_policy.clone()),
        args: Some(vec!["agent".to_owned()]),
        env: Some(environment::proxy(settings, options, identity)),
        ports: Some(vec![ContainerPort {
            name: Some("http-envoy-prom".to_owned()),
            container_port: METRICS_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(options.resources.clone()),
        restart_policy: (sidecar && options.native).then(|| "Always".to_owned()),
        security_context: Some(security::proxy(options, identity.role)),
        volume_mounts: Some(volumes::mounts(options)),
        lifecycle: startup(Startup::PostStartHook).then(post_start),
        startup_probe: (startup(Startup::StartupProbe) && !options.readiness.disabled)
            .then(|| health_probe(options, 1, 600)),
        readiness_probe: (!options.readiness.disabled)
            .then(|| readiness_probe(options, identity.role)),
        ..Container::default()
    }
}

fn post_start() -> Lifecycle {
    let command = [BINARY, "agent", "--wait"].map(str::to_owned).to_vec();
    Lifecycle {
        post_start: Some(LifecycleHandler {
            exec: Some(ExecAction { command: Some(command) }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    }
}

fn readiness_probe(options: &Options, role: Role) -> Probe {
    let readiness = &options.readiness;
    let period = readiness.period_seconds.unwrap_or(match role {
        Role::Sidecar => 5,
        Role::Router => 2,
    });
    Probe {
        initial_delay_seconds: readiness.initial_delay_seconds,
        ..health_probe(options, period, readiness.failure_threshold.unwrap_or(4))
    }
}

fn health_probe(options: &Options, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(options.readiness.port.map_or(HEALTH_PORT, i32::from)),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(3),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}
