//! A cluster that exists nowhere.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use meshwright::watch::{
    Changes, Key, Snapshot,
    snapshot::{EndpointSlice, Namespace, Pod, Service, ServicePort, SliceEndpoint, TargetPort},
};

pub struct Cluster {
    snapshot: Snapshot,
    services: Vec<Key>,
}

impl Cluster {
    pub fn new(services: usize, ports: u16, endpoints: usize, namespaces: usize) -> Self {
        let mut cluster = Self { snapshot: Snapshot::default(), services: Vec::new() };
        cluster.snapshot.system_namespace = "meshwright-system".into();
        for index in 0..namespaces {
            let key = Key::new("", &format!("namespace-{index}"));
            let table = Arc::make_mut(&mut cluster.snapshot.namespaces);
            table.insert(key, Arc::new(Namespace::default()));
        }
        for index in 0..services {
            cluster.add(index, ports, endpoints, namespaces);
        }
        cluster
    }

    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// The last endpoint of a service goes, or comes back.
    pub fn change_endpoints(&mut self, change: usize) -> (Snapshot, Changes) {
        let service = self.services[(change / 2 * 37) % self.services.len()].clone();
        let key = Key::new(&service.namespace, &format!("{}-abcde", service.name));
        let slices = Arc::make_mut(&mut self.snapshot.endpoint_slices);
        if let Some(slice) = slices.get_mut(&key)
            && let Some(last) = Arc::make_mut(slice).endpoints.last_mut()
        {
            last.ready = !last.ready;
            last.serving = last.ready;
        }
        let changes = Changes { endpoints_of: [service].into(), ..Changes::default() };
        (self.snapshot(), changes)
    }

    fn add(&mut self, index: usize, ports: u16, endpoints: usize, namespaces: usize) {
        let key =
            Key::new(&format!("namespace-{}", index % namespaces), &format!("service-{index}"));
        let labels: BTreeMap<_, _> = [("app".to_owned(), key.name.to_string())].into();
        let port = |n: u16| ServicePort {
            name: format!("http-{n}"),
            port: 80 + n * 1000,
            transport: "TCP".to_owned(),
            app_protocol: None,
            target: TargetPort::Number(8080 + n),
        };
        let service = Service {
            cluster_ips: vec![address(10, 96, index)],
            selector: labels.clone(),
            ports: (0..ports).map(port).collect(),
            ..Service::default()
        };
        let pods = (0..endpoints).map(|n| self.pod(&key, &labels, index * endpoints + n));
        let endpoints = pods.collect();
        let ports = (0..ports).map(|n| (format!("http-{n}"), 8080 + n)).collect();
        let slice = EndpointSlice { service: key.name.clone(), ports, endpoints };
        let slice_key = Key::new(&key.namespace, &format!("{}-abcde", key.name));
        Arc::make_mut(&mut self.snapshot.services).insert(key.clone(), Arc::new(service));
        let slices = Arc::make_mut(&mut self.snapshot.endpoint_slices);
        slices.insert(slice_key, Arc::new(slice));
        self.services.push(key);
    }

    fn pod(
        &mut self,
        service: &Key,
        labels: &BTreeMap<String, String>,
        index: usize,
    ) -> SliceEndpoint {
        let name = format!("{}-{index}", service.name);
        let ip = address(10, 128, index);
        let pod = Pod {
            labels: labels.clone(),
            ips: vec![ip],
            node: "node-1".into(),
            service_account: service.name.clone(),
            meshed: true,
            workload: service.name.clone(),
            ready: true,
            ..Pod::default()
        };
        let key = Key::new(&service.namespace, &name);
        Arc::make_mut(&mut self.snapshot.pods).insert(key, Arc::new(pod));
        SliceEndpoint {
            addresses: vec![ip],
            pod: Some(name.into()),
            node: Some("node-1".into()),
            ready: true,
            serving: true,
            ..SliceEndpoint::default()
        }
    }
}

/// The `index`th address of a /16 or two.
fn address(first: u8, second: u8, index: usize) -> IpAddr {
    let offset = u32::try_from(index).unwrap_or(0) + 1;
    let base = u32::from(Ipv4Addr::new(first, second, 0, 0));
    Ipv4Addr::from(base + offset).into()
}
