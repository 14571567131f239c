//! Cases of `tests/golden/envoy`: Kubernetes objects in, the resources of some proxies out, as JSON.
//!
//! Pods labelled `render: outbound`, `inbound` or `gateway` say whose; `interception: TPROXY` says
//! what their agents would.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use meshwright::{
    diagnostic::Diagnostic,
    envoy::{self, Encoded},
    mesh::{self, EdsName, EndpointTable, Interception, Key, Mesh, ProxyNode, ProxyRole},
    plan::{self, Discovery},
    watch::{Snapshot, from_yaml, snapshot::Pod},
    xds::{ResourceSet, ResourceType},
};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

/// One proxy of a case.
pub struct Proxy {
    /// `POD-outbound`, `POD-inbound` or `POD-gateway`.
    pub name: String,
    pub encoded: Encoded,
    pub endpoints: ResourceSet,
    pub diagnostics: Vec<Diagnostic>,
}

pub struct Case {
    pub name: String,
    pub directory: PathBuf,
    pub snapshot: Snapshot,
    pub endpoints: EndpointTable,
    pub mesh: Mesh,
    pub diagnostics: Vec<Diagnostic>,
}

pub fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/envoy");
    let mut directories: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    directories.iter().map(|directory| Case::read(directory)).collect()
}

impl Case {
    fn read(directory: &Path) -> Self {
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(directory.join("input.yaml")).unwrap();
        let snapshot = from_yaml(&text).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let snapshot = mesh::discovery::visible(&snapshot);
        let endpoints = mesh::endpoints::build(&snapshot);
        let (mesh, diagnostics) = mesh::build(&snapshot, &endpoints);
        let directory = directory.to_owned();
        Self { name, directory, snapshot, endpoints, mesh, diagnostics }
    }

    pub fn proxies(&self) -> Vec<Proxy> {
        let mut proxies = Vec::new();
        for (key, pod) in self.snapshot.pods.iter() {
            if let Some(render) = pod.labels.get("render") {
                proxies.extend(render.split('-').map(|what| self.proxy(what, key, pod)));
            }
        }
        assert!(!proxies.is_empty(), "{}: no pod is labelled `render`", self.name);
        proxies
    }

    fn proxy(&self, what: &str, key: &Key, pod: &Pod) -> Proxy {
        let node =
            node(key, pod, if what == "gateway" { ProxyRole::Router } else { ProxyRole::Sidecar });
        let mut names: Vec<EdsName> = Vec::new();
        let mut collect = |clusters: &BTreeMap<plan::ClusterId, plan::Cluster>| {
            names.extend(clusters.values().filter_map(|cluster| match &cluster.discovery {
                Discovery::Endpoints(name) => Some(name.clone()),
                _ => None,
            }));
        };
        let (encoded, diagnostics) = match what {
            "outbound" => {
                let scope = plan::scope(&self.mesh, &node);
                let (plan, diagnostics) = plan::outbound(&self.mesh, &scope);
                collect(&plan.clusters);
                (envoy::outbound(&plan), diagnostics)
            }
            "inbound" => {
                let (plan, diagnostics) = plan::inbound(&self.mesh, &node);
                collect(&plan.clusters);
                (envoy::inbound(&plan), diagnostics)
            }
            "gateway" => {
                let (plan, mut diagnostics) = plan::gateway(&self.mesh, &node);
                collect(&plan.clusters);
                let (encoded, more) = envoy::gateway(&plan, &self.snapshot.tls_secrets);
                diagnostics.extend(more);
                (encoded, diagnostics)
            }
            other => panic!("{}: cannot render {other}", self.name),
        };
        let mut endpoints = ResourceSet::default();
        for name in names {
            let resource = envoy::endpoints(&name, &self.endpoints).unwrap();
            endpoints.insert_encoded(resource);
        }
        Proxy { name: format!("{}-{what}", key.name), encoded, endpoints, diagnostics }
    }
}

fn node(key: &Key, pod: &Pod, role: ProxyRole) -> ProxyNode {
    ProxyNode {
        role,
        key: key.clone(),
        addresses: pod.ips.clone(),
        labels: pod.labels.clone(),
        service_account: pod.service_account.clone(),
        workload: pod.workload.clone(),
        interception: match pod.labels.get("interception").map(String::as_str) {
            Some("TPROXY") => Interception::Tproxy,
            _ => Interception::Redirect,
        },
    }
}

impl Proxy {
    /// Everything that the proxy gets, by kind.
    pub fn to_json(&self) -> Value {
        json!({
            "clusters": all(&self.encoded.clusters, ResourceType::Cluster),
            "endpoints": all(&self.endpoints, ResourceType::Endpoints),
            "listeners": all(&self.encoded.listeners, ResourceType::Listener),
            "routes": all(&self.encoded.routes, ResourceType::Route),
            "secrets": all(&self.encoded.secrets, ResourceType::Secret),
        })
    }
}

pub fn all(set: &ResourceSet, kind: ResourceType) -> Vec<Value> {
    set.by_name.values().map(|resource| decode(kind.type_url(), &resource.body)).collect()
}

fn decode(type_url: &str, body: &[u8]) -> Value {
    let name = type_url.rsplit('/').next().unwrap();
    let descriptor = descriptors().get_message_by_name(name).unwrap();
    let message = DynamicMessage::decode(descriptor, body).unwrap();
    let options =
        SerializeOptions::new().stringify_64_bit_integers(false).use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// What our resources are made of: not all of Envoy's files compile here.
const FOLDERS: &[&str] = &[
    "config/cluster/v3",
    "config/listener/v3",
    "config/route/v3",
    "config/trace/v3",
    "extensions/access_loggers/grpc/v3",
    "extensions/access_loggers/open_telemetry/v3",
    "extensions/access_loggers/stats/v3",
    "extensions/access_loggers/stream/v3",
    "extensions/filters/http/router/v3",
    "extensions/filters/listener/http_inspector/v3",
    "extensions/filters/listener/original_dst/v3",
    "extensions/filters/listener/original_src/v3",
    "extensions/filters/listener/tls_inspector/v3",
    "extensions/filters/network/http_connection_manager/v3",
    "extensions/filters/network/tcp_proxy/v3",
    "extensions/retry/host/previous_hosts/v3",
    "extensions/transport_sockets/raw_buffer/v3",
    "extensions/transport_sockets/tls/v3",
    "extensions/upstreams/http/v3",
];

/// Envoy's messages, compiled from the files that envoy-types ships; kept under `target`, because
/// compiling them takes a while.
fn descriptors() -> &'static DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let source = envoy_types_source();
        let version = source.file_name().unwrap().to_string_lossy().into_owned();
        let cached = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("{version}-{}.descriptors", FOLDERS.len()));
        if let Some(pool) = fs::read(&cached).ok().and_then(|b| DescriptorPool::decode(&*b).ok()) {
            return pool;
        }
        let pool = compile(&source.join("proto"));
        // Two tests may write at once: each its own file, then a rename.
        let own = cached.with_extension(std::process::id().to_string());
        fs::write(&own, pool.encode_to_vec()).unwrap();
        fs::rename(&own, &cached).unwrap();
        pool
    })
}

/// Where Cargo keeps the source of the envoy-types that we are built with.
fn envoy_types_source() -> PathBuf {
    let lock =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let (_, after) = lock.split_once("name = \"envoy-types\"\nversion = \"").unwrap();
    let folder = format!("envoy-types-{}", after.split('"').next().unwrap());
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"));
    let registries = fs::read_dir(home.join("registry/src")).unwrap();
    let mut sources = registries.map(|registry| registry.unwrap().path().join(&folder));
    sources.find(|source| source.is_dir()).expect("the source of envoy-types")
}

fn compile(proto: &Path) -> DescriptorPool {
    let includes = [
        "data-plane-api",
        "xds",
        "protoc-gen-validate",
        "googleapis",
        "cel-spec/proto",
        "client_model",
        "opentelemetry-proto",
        "ratelimit/api",
    ];
    let api = proto.join("data-plane-api");
    let mut files = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(api.join("envoy").join(folder)).unwrap() {
            files.push(entry.unwrap().path());
        }
    }
    let mut compiler = protox::Compiler::new(includes.map(|root| proto.join(root))).unwrap();
    compiler.include_imports(true);
    compiler.open_files(files).unwrap();
    compiler.descriptor_pool()
}
