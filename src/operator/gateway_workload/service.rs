//! The Service of a gateway.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{GatewayWorkload, Port};
use crate::{
    api::meshwright::{
        ExternalTrafficPolicy, InternalTrafficPolicy, IpFamily, IpFamilyPolicy, ServiceType,
    },
    plan::gateway_target_port,
};

impl GatewayWorkload {
    pub(super) fn service(&self) -> Service {
        let settings = &self.service;
        let more = &settings.more;
        let mut metadata = self.metadata();
        if !more.annotations.is_empty() {
            let annotations = metadata.annotations.get_or_insert_default();
            annotations.extend(more.annotations.clone());
        }
        // A load balancer is asked for one address; the others are the network's to lead here.
        let balanced = settings.kind == ServiceType::LoadBalancer;
        let (asked, external) =
            settings.addresses.split_at(usize::from(balanced).min(settings.addresses.len()));
        let families: Vec<_> =
            more.ip_families.iter().copied().map(IpFamily::as_str).map(str::to_owned).collect();
        Service {
            metadata,
            spec: Some(ServiceSpec {
                type_: Some(settings.kind.as_str().to_owned()),
                selector: Some(self.selector.clone()),
                ports: Some(settings.ports.iter().map(port).collect()),
                load_balancer_ip: asked.first().map(ToString::to_string),
                external_ips: (!external.is_empty())
                    .then(|| external.iter().map(ToString::to_string).collect()),
                external_traffic_policy: more
                    .external_traffic_policy
                    .map(ExternalTrafficPolicy::as_str)
                    .map(str::to_owned),
                internal_traffic_policy: more
                    .internal_traffic_policy
                    .map(InternalTrafficPolicy::as_str)
                    .map(str::to_owned),
                load_balancer_class: more.load_balancer_class.clone(),
                load_balancer_source_ranges: (!more.load_balancer_source_ranges.is_empty())
                    .then(|| more.load_balancer_source_ranges.clone()),
                allocate_load_balancer_node_ports: more.allocate_load_balancer_node_ports,
                ip_families: (!families.is_empty()).then_some(families),
                ip_family_policy: more
                    .ip_family_policy
                    .map(IpFamilyPolicy::as_str)
                    .map(str::to_owned),
                ..ServiceSpec::default()
            }),
            status: None,
        }
    }
}

fn port(port: &Port) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        port: port.port.into(),
        target_port: Some(IntOrString::Int(gateway_target_port(port.port).into())),
        node_port: port.node_port,
        protocol: Some("TCP".to_owned()),
        app_protocol: port.app_protocol.map(str::to_owned),
    }
}
