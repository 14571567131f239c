//! Which traffic goes through the proxy, and how it gets there.

use super::Annotation;
use crate::{
    api::meshwright::RedirectionMode,
    webhook::inject::options::{RedirectOptions, form, pod::Draft},
};

const PORTS: &str = "a list of ports";
const ALL_OR_PORTS: &str = "`*`, or a list of ports, or empty for none";
const CIDRS: &str = "a list of ranges of addresses";
const ALL_OR_CIDRS: &str = "`*`, or a list of ranges of addresses, or empty for none";
const INTERFACES: &str = "a list of network interfaces";
const IDS: &str = "a list of numbers of users or groups";
const ALL_OR_IDS: &str = "`*`, or a list of numbers of users or groups, or empty for none";
const BOOLEAN: &str = "`true` or `false`";

/// Sets one of the texts that say what is captured.
fn set(
    draft: &mut Draft,
    field: fn(&mut RedirectOptions) -> &mut String,
    value: form::Result<String>,
) -> form::Result<()> {
    *field(&mut draft.options.redirection) = value?;
    Ok(())
}

pub(in super::super) fn interception(value: &str) -> form::Result<RedirectionMode> {
    match value {
        "REDIRECT" => Ok(RedirectionMode::Redirect),
        "TPROXY" => Ok(RedirectionMode::Tproxy),
        "NONE" => Ok(RedirectionMode::None),
        _ => Err(String::new()),
    }
}

pub(super) const ALL: &[Annotation] = &[
    Annotation {
        name: "interception-mode",
        istio: &["sidecar.istio.io/interceptionMode"],
        form: "`REDIRECT`, `TPROXY` or `NONE`",
        example: "TPROXY",
        effect: "How inbound connections get to the proxy. With `TPROXY` the application sees its \
                 client's address, and the proxy runs as root with NET_ADMIN. With `NONE` nothing \
                 is redirected, and no container is there to do it.",
        apply: |draft, value| {
            draft.options.redirection.mode = interception(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "cap-net-bind-service",
        istio: &["sidecar.istio.io/capNetBindService"],
        form: BOOLEAN,
        example: "true",
        effect: "The proxy runs as root with NET_BIND_SERVICE, so that it may listen on ports \
                 below 1024.",
        apply: |draft, value| {
            draft.options.net_bind_service = form::boolean(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "include-inbound-ports",
        istio: &["traffic.sidecar.istio.io/includeInboundPorts"],
        form: ALL_OR_PORTS,
        example: "80,8443",
        effect: "Ports whose inbound connections are captured.",
        apply: |draft, value| set(draft, |r| &mut r.inbound_ports, form::all_or_ports(value)),
    },
    Annotation {
        name: "exclude-inbound-ports",
        istio: &["traffic.sidecar.istio.io/excludeInboundPorts"],
        form: PORTS,
        example: "22,9000",
        effect: "Ports whose inbound connections are left alone.",
        apply: |draft, value| set(draft, |r| &mut r.exclude_inbound_ports, form::ports(value)),
    },
    Annotation {
        name: "include-outbound-ports",
        istio: &["traffic.sidecar.istio.io/includeOutboundPorts"],
        form: PORTS,
        example: "443",
        effect: "Ports whose outbound connections are captured wherever they lead.",
        apply: |draft, value| set(draft, |r| &mut r.outbound_ports, form::ports(value)),
    },
    Annotation {
        name: "exclude-outbound-ports",
        istio: &["traffic.sidecar.istio.io/excludeOutboundPorts"],
        form: PORTS,
        example: "3306",
        effect: "Ports whose outbound connections are left alone.",
        apply: |draft, value| set(draft, |r| &mut r.exclude_outbound_ports, form::ports(value)),
    },
    Annotation {
        name: "include-outbound-ip-ranges",
        istio: &["traffic.sidecar.istio.io/includeOutboundIPRanges"],
        form: ALL_OR_CIDRS,
        example: "10.0.0.0/8,fd00::/8",
        effect: "Ranges to which outbound connections are captured.",
        apply: |draft, value| set(draft, |r| &mut r.outbound_cidrs, form::all_or_cidrs(value)),
    },
    Annotation {
        name: "exclude-outbound-ip-ranges",
        istio: &["traffic.sidecar.istio.io/excludeOutboundIPRanges"],
        form: CIDRS,
        example: "169.254.169.254/32",
        effect: "Ranges to which outbound connections are left alone.",
        apply: |draft, value| set(draft, |r| &mut r.exclude_outbound_cidrs, form::cidrs(value)),
    },
    Annotation {
        name: "include-interfaces",
        istio: &[],
        form: "`*`, or a list of network interfaces, or empty for none",
        example: "eth0",
        effect: "Network interfaces whose traffic is captured.",
        apply: |draft, value| set(draft, |r| &mut r.interfaces, form::all_or_interfaces(value)),
    },
    Annotation {
        name: "exclude-interfaces",
        istio: &["traffic.sidecar.istio.io/excludeInterfaces"],
        form: INTERFACES,
        example: "net1",
        effect: "Network interfaces whose traffic is left alone.",
        apply: |draft, value| set(draft, |r| &mut r.exclude_interfaces, form::interfaces(value)),
    },
    Annotation {
        name: "reroute-virtual-interfaces",
        istio: &[
            "istio.io/reroute-virtual-interfaces",
            "traffic.sidecar.istio.io/kubevirtInterfaces",
        ],
        form: INTERFACES,
        example: "k6t-eth0",
        effect: "Virtual interfaces, of a virtual machine in the pod say: what comes in by them is \
                 outbound traffic.",
        apply: |draft, value| set(draft, |r| &mut r.reroute_interfaces, form::interfaces(value)),
    },
    Annotation {
        name: "include-outbound-uids",
        istio: &[],
        form: ALL_OR_IDS,
        example: "1000",
        effect: "Users whose outbound traffic is captured.",
        apply: |draft, value| set(draft, |r| &mut r.outbound_uids, form::all_or_ids(value)),
    },
    Annotation {
        name: "exclude-outbound-uids",
        istio: &[],
        form: IDS,
        example: "0",
        effect: "Users whose outbound traffic is left alone.",
        apply: |draft, value| set(draft, |r| &mut r.exclude_outbound_uids, form::ids(value)),
    },
    Annotation {
        name: "include-outbound-gids",
        istio: &[],
        form: ALL_OR_IDS,
        example: "1000",
        effect: "Groups whose outbound traffic is captured.",
        apply: |draft, value| set(draft, |r| &mut r.outbound_gids, form::all_or_ids(value)),
    },
    Annotation {
        name: "exclude-outbound-gids",
        istio: &[],
        form: IDS,
        example: "0",
        effect: "Groups whose outbound traffic is left alone.",
        apply: |draft, value| set(draft, |r| &mut r.exclude_outbound_gids, form::ids(value)),
    },
    Annotation {
        name: "drop-invalid",
        istio: &[],
        form: BOOLEAN,
        example: "true",
        effect: "Packets that belong to no known connection are dropped.",
        apply: |draft, value| {
            draft.options.redirection.drop_invalid = form::boolean(value)?;
            Ok(())
        },
    },
    Annotation {
        name: "dns-capture",
        istio: &[],
        form: BOOLEAN,
        example: "true",
        effect: "The agent answers the application's DNS questions.",
        apply: |draft, value| {
            draft.options.dns_capture = form::boolean(value)?;
            Ok(())
        },
    },
];
