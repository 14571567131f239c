//! The fields of a ServiceEntry, each with what can be wrong about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{Draft, Way};
use crate::{
    api::istio::networking::{
        ServiceEntrySpec,
        service_entry::{self as api, WorkloadEntry},
    },
    identity::SpiffeId,
    mesh::{
        AddressRange, Host, Labels, Locality, MeshConfig, Port, Protocol, protocol,
        report::{OrReport, Path, Report},
        syntax,
    },
    watch::snapshot::{ServicePort, TargetPort},
};

/// Says of an endpoint whether it speaks mesh TLS, as with Istio.
const TLS_MODE: &str = "security.istio.io/tlsMode";
const PROTOCOLS: [&str; 11] =
    ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS", "TCP", "MONGO", "MYSQL", "REDIS", "UDP"];

/// An endpoint that is written in the entry.
#[derive(Clone, Debug)]
pub(super) struct Inline {
    /// An IP address, or with DNS a name.
    pub(super) address: Host,
    ports: BTreeMap<String, u16>,
    pub(super) labels: Labels,
    pub(super) locality: Option<Locality>,
    pub(super) service_account: Option<String>,
    pub(super) meshed: bool,
}

impl Inline {
    /// The endpoint's port for one of the entry's.
    pub(super) fn port(&self, port: &Port) -> u16 {
        self.ports.get(&port.name).copied().unwrap_or_else(|| target(port))
    }
}

/// The port of the endpoints, where they do not say another.
pub(super) fn target(port: &Port) -> u16 {
    match port.target {
        TargetPort::Number(number) if number > 0 => number,
        _ => port.number,
    }
}

/// `None` where it cannot be resolved as asked.
pub(super) fn resolution(text: Option<&str>, report: &mut Report) -> Option<Way> {
    match text {
        None | Some("NONE") => Some(Way::None),
        Some("STATIC") => Some(Way::Static),
        Some("DNS") => Some(Way::Dns { first_only: false }),
        Some("DNS_ROUND_ROBIN") => Some(Way::Dns { first_only: true }),
        Some(other) => {
            let consequence = format!(
                "with {other} none of the object takes effect, use NONE, STATIC, DNS or \
                 DNS_ROUND_ROBIN"
            );
            report.unsupported_field(&Path::SPEC.field("resolution"), &consequence);
            None
        }
    }
}

pub(super) fn is_external(location: Option<&str>, report: &mut Report) -> bool {
    match location {
        None | Some("MESH_EXTERNAL") => true,
        Some("MESH_INTERNAL") => false,
        Some(other) => {
            let consequence = format!("{other} counts as MESH_EXTERNAL, use that or MESH_INTERNAL");
            report.unsupported_field(&Path::SPEC.field("location"), &consequence);
            true
        }
    }
}

pub(super) fn hosts(spec: &ServiceEntrySpec, way: Way, report: &mut Report) -> Vec<Host> {
    let path = Path::SPEC.field("hosts");
    if spec.hosts.is_empty() {
        report.error(&path, "HostMissing", "name at least one host");
    }
    let mut hosts: Vec<Host> = Vec::new();
    for (i, text) in spec.hosts.iter().enumerate() {
        let path = path.index(i);
        let checked = syntax::host(text).and_then(|host| match host.as_str() {
            "*" => Err("must be narrower than *: name a domain, such as *.example.com".to_owned()),
            wildcard
                if wildcard.starts_with('*')
                    && matches!(way, Way::Dns { .. })
                    && spec.endpoints.is_empty() =>
            {
                Err("is a wildcard, which DNS cannot resolve: name the hosts, list \
                     spec.endpoints, or use resolution NONE"
                    .to_owned())
            }
            _ => Ok(host),
        });
        let Some(host) = checked.or_report(report, &path, "InvalidHost") else { continue };
        if !hosts.iter().any(|known| **known == *host) {
            hosts.push(host.into());
        }
    }
    hosts
}

pub(super) fn addresses(list: &[String], way: Way, report: &mut Report) -> Vec<AddressRange> {
    let path = Path::SPEC.field("addresses");
    let mut ranges = BTreeSet::new();
    for (i, text) in list.iter().enumerate() {
        let path = path.index(i);
        let checked = text.parse::<AddressRange>().and_then(|range| {
            if range.is_single() || !matches!(way, Way::Dns { .. }) {
                return Ok(range);
            }
            Err("is a range, which goes with resolution NONE or STATIC only: write single \
                 addresses"
                .to_owned())
        });
        ranges.extend(checked.or_report(report, &path, "InvalidAddress"));
    }
    ranges.into_iter().collect()
}

pub(super) fn ports(list: &[api::Port], report: &mut Report) -> Vec<Port> {
    let path = Path::SPEC.field("ports");
    if list.is_empty() {
        let message = "there is no port, so proxies do nothing for these hosts: list their ports";
        report.warning(&path, "PortMissing", message);
    }
    let mut ports: Vec<Port> = Vec::new();
    for (i, port) in list.iter().enumerate() {
        let path = path.index(i);
        report.unsupported(&path, &port.unsupported);
        let Some(number) = number(port.number, &path.field("number"), report) else { continue };
        if ports.iter().any(|other| other.number == number || other.name == port.name) {
            let message = "its number or its name is that of a port above: change it, or remove it";
            report.error(&path, "Conflict", message);
            continue;
        }
        let target =
            port.target_port.and_then(|t| self::number(t, &path.field("targetPort"), report));
        ports.push(Port {
            number,
            name: port.name.clone(),
            protocol: port_protocol(port, number, &path, report),
            target: TargetPort::Number(target.unwrap_or(number)),
        });
    }
    ports.sort_by_key(|port| port.number);
    ports
}

fn number(number: u32, path: &Path<'_>, report: &mut Report) -> Option<u16> {
    let number = u16::try_from(number).ok().filter(|number| *number > 0);
    number.ok_or_else(|| "is not between 1 and 65535".to_owned()).or_report(
        report,
        path,
        "InvalidPort",
    )
}

fn port_protocol(port: &api::Port, number: u16, path: &Path<'_>, report: &mut Report) -> Protocol {
    let path = path.field("protocol");
    let declared = port.protocol.as_deref().filter(|text| !text.is_empty());
    if let Some(text) = declared
        && !PROTOCOLS.contains(&text.to_ascii_uppercase().as_str())
    {
        let message = format!(
            "{text} is not known, so proxies look for themselves: use one of {}",
            PROTOCOLS.join(", ")
        );
        report.error(&path, "UnsupportedProtocol", message);
    }
    let transport =
        if declared.is_some_and(|text| text.eq_ignore_ascii_case("UDP")) { "UDP" } else { "TCP" };
    let found = protocol::of(&ServicePort {
        name: port.name.clone(),
        port: number,
        transport: transport.to_owned(),
        app_protocol: declared.map(str::to_ascii_lowercase),
        target: TargetPort::Number(number),
    });
    if found == Protocol::Udp {
        report.warning(&path, "NotProxied", "UDP goes past the proxy, to where DNS says");
    }
    found
}

pub(super) fn endpoints(
    spec: &ServiceEntrySpec,
    way: Way,
    external: bool,
    ports: &[Port],
    report: &mut Report,
) -> Vec<Inline> {
    let path = Path::SPEC.field("endpoints");
    let mut list = &spec.endpoints[..];
    if way == Way::None && !list.is_empty() {
        let message = "have no effect with resolution NONE, where clients choose: use STATIC or \
                       DNS, or remove them";
        report.error(&path, "Conflict", message);
        return Vec::new();
    }
    if way == (Way::Dns { first_only: true }) && list.len() > 1 {
        let message = "DNS_ROUND_ROBIN takes one endpoint, the first: use DNS for several";
        report.error(&path, "Conflict", message);
        list = &list[..1];
    }
    if way == Way::Static && list.is_empty() && spec.workload_selector.is_none() {
        let message = "there are none, so every connection fails: list them, or select pods with \
                       spec.workloadSelector";
        report.warning(&path, "EndpointsMissing", message);
    }
    let one = |(i, endpoint): (usize, &WorkloadEntry)| {
        inline(endpoint, way, external, ports, &path.index(i), report)
    };
    list.iter().enumerate().filter_map(one).collect()
}

fn inline(
    endpoint: &WorkloadEntry,
    way: Way,
    external: bool,
    entry_ports: &[Port],
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Inline> {
    report.unsupported(path, &endpoint.unsupported);
    let address_path = path.field("address");
    if endpoint.address.starts_with("unix://") {
        let consequence = "a socket of the proxy's file system is left out, use an IP address";
        report.unsupported_field(&address_path, consequence);
        return None;
    }
    let address = address(&endpoint.address, way);
    let address = address.or_report(report, &address_path, "InvalidAddress")?;
    let ports_path = path.field("ports");
    let mut ports = BTreeMap::new();
    for (name, target) in &endpoint.ports {
        let path = ports_path.key(name);
        if !entry_ports.iter().any(|port| port.name == *name) {
            let message = "spec.ports has no port of this name: correct the name";
            report.error(&path, "PortNotFound", message);
        } else if let Some(target) = number(*target, &path, report) {
            ports.insert(name.clone(), target);
        }
    }
    let locality = endpoint.locality.as_deref().filter(|text| !text.is_empty()).map(|text| {
        let mut places = text.split('/').map(Into::into);
        let mut next = || places.next().unwrap_or_else(|| "".into());
        Locality { region: next(), zone: next() }
    });
    let service_account = endpoint.service_account.clone().filter(|name| !name.is_empty());
    let speaks_tls = match endpoint.labels.get(TLS_MODE) {
        Some(mode) => mode == "istio",
        None => service_account.is_some(),
    };
    let labels = endpoint.labels.clone();
    let meshed = speaks_tls && !external;
    Some(Inline { address: address.into(), ports, labels, locality, service_account, meshed })
}

fn address(text: &str, way: Way) -> Result<String, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    if way == Way::Static {
        return Err(format!("{text:?} is no IP address, which STATIC needs: use one, or DNS"));
    }
    match syntax::host(text)? {
        wildcard if wildcard.starts_with('*') => Err(format!("{text:?} is not one host")),
        host => Ok(host),
    }
}

pub(super) fn selector(spec: &ServiceEntrySpec, way: Way, report: &mut Report) -> Option<Labels> {
    let selector = spec.workload_selector.as_ref()?;
    let path = Path::SPEC.field("workloadSelector");
    report.unsupported(&path, &selector.unsupported);
    if way != Way::Static {
        report.unsupported_field(&path, "it has no effect without resolution STATIC, set that");
        return None;
    }
    let wrong = if !spec.endpoints.is_empty() {
        "has no effect beside spec.endpoints: remove one of the two"
    } else if selector.labels.is_empty() {
        "names no label and so selects nothing: name one"
    } else {
        return Some(selector.labels.clone());
    };
    report.error(&path, "Conflict", wrong);
    None
}

pub(super) fn identities(
    list: &[String],
    external: bool,
    report: &mut Report,
) -> BTreeSet<SpiffeId> {
    let path = Path::SPEC.field("subjectAltNames");
    if external && !list.is_empty() {
        let consequence = "no certificate is checked for hosts outside the mesh, since proxies \
                           start no TLS of their own towards them; remove it";
        report.unsupported_field(&path, consequence);
        return BTreeSet::new();
    }
    let mut identities = BTreeSet::new();
    for (i, text) in list.iter().enumerate() {
        if let Ok(identity) = text.parse::<SpiffeId>() {
            identities.insert(identity);
        } else {
            // Other names stand in other certificates than the mesh's.
            let consequence = "it is no identity of a mesh and has no effect, write \
                               spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/NAME";
            report.unsupported_field(&path.index(i), consequence);
        }
    }
    identities
}

/// TCP says no name: only addresses tell its destinations apart. (Whether hosts are given some is for
/// the installation to say, so this is not for admission.)
pub(super) fn check_tcp(draft: &Draft, config: &MeshConfig, report: &mut Report) {
    let path = Path::SPEC.field("ports");
    let tcp = |port: &&Port| matches!(port.protocol, Protocol::Tcp | Protocol::ServerFirst);
    let Some(port) = draft.ports.iter().find(tcp) else { return };
    let nameless = draft.hosts.iter().any(|host| !draft.wants_address(host, config));
    if draft.ranges.is_empty() && nameless {
        let message = format!(
            "without addresses, TCP port {} takes every connection to that port that nothing else \
             claims: set spec.addresses, or spec.dns.autoAllocate of the MeshInstallation",
            port.number
        );
        report.warning(&path, "AddressMissing", message);
    } else if !draft.ranges.is_empty() && draft.hosts.len() > 1 {
        let message = format!(
            "TCP says no host, so port {} of these addresses leads to the first host by name: make \
             an object for each host",
            port.number
        );
        report.warning(&path, "HostsAmbiguous", message);
    }
}
