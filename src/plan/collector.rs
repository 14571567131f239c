//! Clusters of services that proxies themselves send something to: spans, access logs.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Cluster, ClusterId, Discovery, DnsTarget, UpstreamProtocol, UpstreamTls, View, entry,
    view::MAX_ALIAS_HOPS,
};
use crate::mesh::{Collector, EdsName, Labels, Service, ServiceKind};

impl View<'_> {
    /// The clusters of all collectors of the mesh. Whether the namespace sees them does not matter:
    /// the mesh's owner has chosen them for everybody.
    pub(super) fn collectors(&self) -> BTreeMap<ClusterId, Cluster> {
        let all = self.mesh.config.collectors();
        let clusters = all.filter_map(|collector| self.collector(collector));
        clusters.map(|cluster| (cluster.id.clone(), cluster)).collect()
    }

    pub(super) fn collector(&self, collector: &Collector) -> Option<Cluster> {
        let service = self.real(self.mesh.service(&collector.host)?);
        let name =
            EdsName { port: collector.port, host: service.host.clone(), labels: Labels::new() };
        let (discovery, unless_told) = match &service.kind {
            ServiceKind::ExternalName { target } => {
                let host = target.clone();
                let endpoints = vec![DnsTarget { host, port: collector.port, meshed: false }];
                (Discovery::Dns { endpoints, first_only: false }, UpstreamTls::Never)
            }
            ServiceKind::Entry(entry) => entry::discovery(entry, name),
            _ => (Discovery::Endpoints(name), UpstreamTls::Auto),
        };
        let traffic = self.policy(&service.host).map(|p| p.policy).unwrap_or_default();
        let default = self.mesh.config.load_balancing;
        Some(Cluster {
            id: ClusterId::Collector(collector.clone()),
            service: service.key.clone(),
            host: service.host.clone(),
            discovery,
            load_balancing: traffic.load_balancing.unwrap_or(default),
            tls: self.tls(traffic.tls, unless_told),
            identities: Arc::new(service.shape.identities.clone()),
            protocol: if collector.grpc {
                UpstreamProtocol::Http2
            } else {
                UpstreamProtocol::Http1
            },
            stat_name: None,
        })
    }

    /// What an alias stands for, seen or not.
    fn real<'s>(&'s self, service: &'s Arc<Service>) -> &'s Arc<Service> {
        let mut service = service;
        for _ in 0..MAX_ALIAS_HOPS {
            let ServiceKind::ExternalName { target } = &service.kind else { return service };
            match self.mesh.service(target) {
                Some(target) => service = target,
                None => return service,
            }
        }
        service
    }
}
