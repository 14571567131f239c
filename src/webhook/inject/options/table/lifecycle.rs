//! Start, readiness and end of the proxy, and Istio's ProxyConfig, which is about everything.

use super::Annotation;
use crate::webhook::inject::options::{form, proxy_config};

const BOOLEAN: &str = "`true` or `false`";
const DAY: i32 = 86_400;
/// Ports of a proxy on which something else is.
const TAKEN: [u16; 7] = [15000, 15001, 15004, 15006, 15008, 15053, 15090];
const HEALTH: u16 = 15021;

pub(super) const ALL: &[Annotation] = &[
    Annotation {
        name: "proxy-config",
        istio: &["proxy.istio.io/config"],
        form: "Istio's ProxyConfig as YAML",
        example: "`concurrency: 2`",
        effect: "Several settings in one, see below. An annotation for one of them wins.",
        apply: proxy_config::apply,
    },
    Annotation {
        name: "native-sidecar",
        istio: &["sidecar.istio.io/nativeSidecar"],
        form: BOOLEAN,
        example: "true",
        effect: "Whether the proxy is an init container that stays, or an ordinary container.",
        apply: |draft, value| {
            draft.options.native = form::boolean(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "rewrite-app-probes",
        istio: &["sidecar.istio.io/rewriteAppHTTPProbers"],
        form: BOOLEAN,
        example: "false",
        effect: "Whether the application's probes and lifecycle handlers go through the agent.",
        apply: |draft, value| {
            draft.options.rewrite_probes = form::boolean(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "status-port",
        istio: &["status.sidecar.istio.io/port"],
        form: "0, or a port that the proxy does not use otherwise",
        example: "9021",
        effect: "Where the agent says whether the proxy is ready. With 0 the kubelet does not ask.",
        apply: |draft, value| {
            let readiness = &mut draft.options.readiness;
            if value == "0" {
                readiness.disabled = true;
                return Ok(());
            }
            let port = form::port(value)?;
            if TAKEN.contains(&port) {
                return Err(format!("{port} is one of the proxy's own ports"));
            }
            readiness.disabled = false;
            readiness.port = (port != HEALTH).then_some(port);
            Ok(())
        },
    },
    Annotation {
        name: "readiness-initial-delay-seconds",
        istio: &["readiness.status.sidecar.istio.io/initialDelaySeconds"],
        form: "a whole number from 0 to 86400",
        example: "1",
        effect: "How long the kubelet waits before it first asks whether the proxy is ready.",
        apply: |draft, value| {
            draft.options.readiness.initial_delay_seconds = Some(form::whole(value, 0..=DAY)?);
            Ok(())
        },
    },
    Annotation {
        name: "readiness-period-seconds",
        istio: &["readiness.status.sidecar.istio.io/periodSeconds"],
        form: "a whole number from 1 to 86400",
        example: "2",
        effect: "How often the kubelet asks whether the proxy is ready.",
        apply: |draft, value| {
            draft.options.readiness.period_seconds = Some(form::whole(value, 1..=DAY)?);
            Ok(())
        },
    },
    Annotation {
        name: "readiness-failure-threshold",
        istio: &["readiness.status.sidecar.istio.io/failureThreshold"],
        form: "a whole number from 1 to 86400",
        example: "30",
        effect: "After how many failures in a row the proxy is not ready.",
        apply: |draft, value| {
            draft.options.readiness.failure_threshold = Some(form::whole(value, 1..=DAY)?);
            Ok(())
        },
    },
    Annotation {
        name: "readiness-application-ports",
        istio: &["readiness.status.sidecar.istio.io/applicationPorts"],
        form: "a list of ports",
        example: "8080",
        effect: "Accepted, and needed for nothing: the proxy is ready only when it has its \
                 configuration for every port.",
        apply: |_, value| form::ports(value).map(drop),
    },
    Annotation {
        name: "discovery-address",
        istio: &["sidecar.istio.io/discoveryAddress"],
        form: "HOST:PORT",
        example: "meshwright-control-plane.meshwright-system.svc:15012",
        effect: "The control plane that the proxy asks instead of its revision's.",
        apply: |draft, value| {
            draft.options.discovery_address = Some(form::address(value)?.to_owned());
            Ok(())
        },
    },
];
