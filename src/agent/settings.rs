//! What the agent is told through its environment. Pure: the environment is an input.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    agent::{
        probe::{Probe, Scheme},
        stats::StatsOptions,
    },
    identity::SpiffeId,
};

/// Ports that are the same in every pod.
pub mod ports {
    /// Envoy's administration, on loopback.
    pub const ADMIN: u16 = 15000;
    /// The agent: merged metrics, probes, drain.
    pub const AGENT: u16 = 15020;
    /// Readiness alone, unless the pod chose another port for it.
    pub const HEALTH: u16 = 15021;
    /// Envoy's own metrics.
    pub const METRICS: u16 = 15090;
}

/// What kind of proxy this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    /// A gateway.
    Router,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
        })
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "router" => Ok(Self::Router),
            _ => Err("it must be sidecar or router"),
        }
    }
}

/// How inbound connections get to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interception {
    Redirect,
    Tproxy,
    None,
}

impl Interception {
    /// As Envoy's node metadata has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
            Self::None => "NONE",
        }
    }
}

impl FromStr for Interception {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = [Self::Redirect, Self::Tproxy, Self::None];
        let found = all.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or("it must be REDIRECT, TPROXY or NONE")
    }
}

/// How a sidecar runs beside the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SidecarKind {
    /// It is stopped after the application has ended.
    Native,
    /// It is stopped together with the application.
    Classic,
}

impl FromStr for SidecarKind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "native" => Ok(Self::Native),
            "classic" => Ok(Self::Classic),
            _ => Err("it must be native or classic"),
        }
    }
}

/// A gateway is stopped when its pod is deleted, before clients and load balancers know; a classic
/// sidecar before its application has done its last. They serve on for a while even if nobody is
/// connected right now.
const GRACE: Duration = Duration::from_secs(5);

/// Where the control plane is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// The name in its certificate.
    pub host: String,
    pub port: u16,
}

impl FromStr for Discovery {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "it must be HOST:PORT";
        let (host, port) = text.rsplit_once(':').ok_or(FORM)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(FORM);
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| FORM)? })
    }
}

impl Discovery {
    /// The name to look up. `x.y.svc` has fewer dots than a resolver takes for a whole name, so it
    /// would go through the search list first; the whole name costs one question.
    pub fn lookup_name(&self, cluster_domain: &str) -> String {
        match self.host.rsplit_once('.') {
            Some((_, "svc")) => format!("{}.{cluster_domain}.", self.host),
            _ => self.host.clone(),
        }
    }
}

/// Where the application's own metrics are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AppMetrics {
    pub port: u16,
    #[serde(default = "metrics_path")]
    pub path: String,
    #[serde(default)]
    pub scheme: Scheme,
}

fn metrics_path() -> String {
    "/metrics".to_owned()
}

/// All that the agent is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub role: Role,
    pub pod_name: String,
    pub pod_ip: IpAddr,
    pub node_name: String,
    /// The workload's identity: trust domain, namespace and service account.
    pub identity: SpiffeId,
    pub discovery: Discovery,
    pub cluster_domain: String,
    pub cluster_id: String,
    pub revision: String,
    /// The pod's labels, which are in a file and not in the environment.
    pub labels: BTreeMap<String, String>,
    pub workload: String,
    pub proxy_log_level: String,
    /// `COMPONENT:LEVEL,…`
    pub component_log_level: String,
    /// Worker threads; 0 leaves it to Envoy, which takes one for each CPU.
    pub concurrency: u32,
    /// How long connections may take to end when the pod is stopped.
    pub drain: Duration,
    /// How long the proxy serves on at least, whether there are connections or not.
    pub min_drain: Duration,
    /// Connections may take as long as Kubernetes lets the pod.
    pub drain_to_the_last: bool,
    /// How long connections may take to end when their listener has changed.
    pub listener_drain: Option<Duration>,
    /// Where readiness is answered alone.
    pub health_port: u16,
    pub interception: Interception,
    /// The network that the pod is in; empty in a mesh of one.
    pub network: String,
    /// More metadata of Envoy's node.
    pub node_metadata: BTreeMap<String, String>,
    pub stats: StatsOptions,
    /// Envoy's runtime flags.
    pub runtime: BTreeMap<String, String>,
    /// A part of Envoy's bootstrap that the pod brings.
    pub bootstrap_override: Option<PathBuf>,
    /// The application's probes and lifecycle handlers, by the path under which the kubelet asks for
    /// them.
    pub app_probes: BTreeMap<String, Probe>,
    pub app_metrics: Vec<AppMetrics>,
    /// For how long certificates are asked for.
    pub certificate_ttl: Duration,
    /// The Envoy binary.
    pub envoy: PathBuf,
    /// Where the socket and Envoy's bootstrap are written.
    pub run_dir: PathBuf,
    /// Where the token and the root certificate are mounted.
    pub identity_dir: PathBuf,
    /// Where the kubelet writes the pod's labels and annotations.
    pub pod_dir: PathBuf,
}

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("the environment variable {0} is not set; the injector sets it in every pod")]
    Missing(&'static str),
    #[error("the environment variable {name} is {value:?}: {reason}")]
    Invalid { name: &'static str, value: String, reason: String },
}

impl Settings {
    /// Reads the settings with `get`, which knows the environment.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let env = Env(get);
        let pod_name = env.required("POD_NAME")?;
        let role = env.or("MESHWRIGHT_ROLE", Role::Sidecar)?;
        let drain = env.seconds("MESHWRIGHT_DRAIN_SECONDS", 5)?;
        Ok(Self {
            role,
            pod_ip: env.parse_required("POD_IP")?,
            node_name: env.text("NODE_NAME", ""),
            identity: SpiffeId {
                trust_domain: env.text("MESHWRIGHT_TRUST_DOMAIN", "cluster.local"),
                namespace: env.required("POD_NAMESPACE")?,
                service_account: env.required("SERVICE_ACCOUNT")?,
            },
            discovery: env.parse_required("MESHWRIGHT_DISCOVERY_ADDRESS")?,
            cluster_domain: env.text("MESHWRIGHT_CLUSTER_DOMAIN", "cluster.local"),
            cluster_id: env.text("MESHWRIGHT_CLUSTER_ID", "Kubernetes"),
            revision: env.text("MESHWRIGHT_REVISION", "default"),
            labels: BTreeMap::new(),
            workload: env.text("MESHWRIGHT_WORKLOAD", &pod_name),
            proxy_log_level: env.text("MESHWRIGHT_PROXY_LOG_LEVEL", "warning"),
            component_log_level: env.text("MESHWRIGHT_PROXY_COMPONENT_LOG_LEVEL", ""),
            concurrency: env.concurrency()?,
            drain,
            min_drain: env.min_drain(role, drain)?,
            drain_to_the_last: env.or("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false)?,
            listener_drain: env.optional_seconds("MESHWRIGHT_LISTENER_DRAIN_SECONDS")?,
            health_port: env.or("MESHWRIGHT_HEALTH_PORT", ports::HEALTH)?,
            interception: env.or("MESHWRIGHT_INTERCEPTION", Interception::Redirect)?,
            network: env.text("MESHWRIGHT_NETWORK", ""),
            node_metadata: env.json("MESHWRIGHT_NODE_METADATA")?.unwrap_or_default(),
            stats: env.json("MESHWRIGHT_STATS")?.unwrap_or_default(),
            runtime: env.json("MESHWRIGHT_RUNTIME")?.unwrap_or_default(),
            bootstrap_override: env.get("MESHWRIGHT_BOOTSTRAP_OVERRIDE").map(PathBuf::from),
            app_probes: env.json("MESHWRIGHT_APP_PROBES")?.unwrap_or_default(),
            app_metrics: env.json("MESHWRIGHT_APP_METRICS")?.unwrap_or_default(),
            certificate_ttl: env.seconds("MESHWRIGHT_CERTIFICATE_SECONDS", 24 * 3600)?,
            envoy: env.text("MESHWRIGHT_ENVOY", "/usr/local/bin/envoy").into(),
            run_dir: env.text("MESHWRIGHT_RUN_DIR", "/var/run/meshwright").into(),
            identity_dir: env.text("MESHWRIGHT_IDENTITY_DIR", "/var/run/secrets/meshwright").into(),
            pod_dir: env.text("MESHWRIGHT_POD_DIR", "/etc/meshwright/pod").into(),
            pod_name,
        })
    }

    pub fn sds_socket(&self) -> PathBuf {
        self.run_dir.join("sds.sock")
    }

    pub fn bootstrap_file(&self) -> PathBuf {
        self.run_dir.join("envoy.json")
    }

    pub fn token_file(&self) -> PathBuf {
        self.identity_dir.join("token")
    }

    pub fn roots_file(&self) -> PathBuf {
        self.identity_dir.join("root-cert.pem")
    }
}

/// The environment, with errors that name the variable. An empty variable is as none.
struct Env<F>(F);

impl<F: Fn(&str) -> Option<String>> Env<F> {
    fn get(&self, name: &'static str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn required(&self, name: &'static str) -> Result<String, Error> {
        self.get(name).ok_or(Error::Missing(name))
    }

    fn text(&self, name: &'static str, default: &str) -> String {
        self.get(name).unwrap_or_else(|| default.to_owned())
    }

    fn or<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &'static str,
        default: T,
    ) -> Result<T, Error> {
        self.get(name).map_or(Ok(default), |value| parse(name, value))
    }

    fn parse_required<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &'static str,
    ) -> Result<T, Error> {
        parse(name, self.required(name)?)
    }

    fn seconds(&self, name: &'static str, default: u64) -> Result<Duration, Error> {
        self.or(name, default).map(Duration::from_secs)
    }

    fn optional_seconds(&self, name: &'static str) -> Result<Option<Duration>, Error> {
        self.get(name).map(|value| parse(name, value).map(Duration::from_secs)).transpose()
    }

    /// Envoy's threads. 0 means as many as the limit of CPUs, which is in thousandths, has room for.
    fn concurrency(&self) -> Result<u32, Error> {
        match self.or("MESHWRIGHT_CONCURRENCY", 2)? {
            0 => Ok(self.or("MESHWRIGHT_CPU_LIMIT", 0_u32)?.div_ceil(1000)),
            threads => Ok(threads),
        }
    }

    /// How long a proxy of this kind serves on at least: by what it is, where nobody says so.
    fn min_drain(&self, role: Role, drain: Duration) -> Result<Duration, Error> {
        if let Some(seconds) = self.optional_seconds("MESHWRIGHT_MIN_DRAIN_SECONDS")? {
            return Ok(seconds);
        }
        let sidecar = self.or("MESHWRIGHT_SIDECAR", SidecarKind::Native)?;
        Ok(match (role, sidecar) {
            (Role::Sidecar, SidecarKind::Native) => Duration::ZERO,
            _ => GRACE.min(drain),
        })
    }

    fn json<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match serde_json::from_str(&value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(Error::Invalid { name, value, reason: error.to_string() }),
        }
    }
}

fn parse<T: FromStr<Err: fmt::Display>>(name: &'static str, value: String) -> Result<T, Error> {
    match value.parse() {
        Ok(parsed) => Ok(parsed),
        Err(error) => Err(Error::Invalid { name, reason: error.to_string(), value }),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const POD: [(&str, &str); 5] = [
        ("POD_NAME", "cart-1"),
        ("POD_NAMESPACE", "shop"),
        ("POD_IP", "10.1.2.3"),
        ("SERVICE_ACCOUNT", "cart"),
        ("MESHWRIGHT_DISCOVERY_ADDRESS", "meshwright-control-plane.meshwright-system.svc:15012"),
    ];

    /// The settings of an ordinary pod, with `changes` to its environment; "" unsets.
    pub(in crate::agent) fn settings(changes: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_env(|name| {
            let found = changes.iter().chain(&POD).find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_the_injector_leaves_out_has_defaults() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.role, Role::Sidecar);
        assert_eq!(settings.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(settings.workload, "cart-1");
        assert_eq!(settings.concurrency, 2);
        assert_eq!(settings.sds_socket(), PathBuf::from("/var/run/meshwright/sds.sock"));
    }

    #[test]
    fn errors_name_the_variable() {
        let cases = [
            ("POD_IP", "", "POD_IP is not set"),
            ("POD_IP", "nine", "POD_IP is \"nine\""),
            ("MESHWRIGHT_ROLE", "boss", "it must be sidecar or router"),
            ("MESHWRIGHT_DISCOVERY_ADDRESS", "host", "it must be HOST:PORT"),
            ("MESHWRIGHT_DISCOVERY_ADDRESS", "host:x", "it must be HOST:PORT"),
            ("MESHWRIGHT_STATS", "{", "MESHWRIGHT_STATS is \"{\""),
            ("MESHWRIGHT_INTERCEPTION", "redirect", "REDIRECT, TPROXY or NONE"),
            ("MESHWRIGHT_HEALTH_PORT", "99999", "MESHWRIGHT_HEALTH_PORT"),
            ("MESHWRIGHT_CONCURRENCY", "-1", "MESHWRIGHT_CONCURRENCY is \"-1\""),
            ("MESHWRIGHT_APP_METRICS", "[{\"port\":99999}]", "MESHWRIGHT_APP_METRICS"),
            ("MESHWRIGHT_APP_METRICS", "{\"port\":9100}", "MESHWRIGHT_APP_METRICS"),
            ("MESHWRIGHT_SIDECAR", "both", "it must be native or classic"),
            ("MESHWRIGHT_MIN_DRAIN_SECONDS", "5s", "MESHWRIGHT_MIN_DRAIN_SECONDS is \"5s\""),
        ];
        for (name, value, want) in cases {
            let got = settings(&[(name, value)]).unwrap_err().to_string();
            assert!(got.contains(want), "{name}={value}: {got}");
        }
    }

    #[test]
    fn reads_the_json_variables() {
        let settings = settings(&[
            ("MESHWRIGHT_NODE_METADATA", r#"{"OWNER":"cart"}"#),
            ("MESHWRIGHT_APP_METRICS", r#"[{"port":9100},{"port":1,"path":"/x","scheme":"HTTPS"}]"#),
            (
                "MESHWRIGHT_APP_PROBES",
                r#"{"/app-health/c/readyz":{"httpGet":{"port":8080,"path":"/up"},"timeoutSeconds":3},
                    "/app-health/c/livez":{"tcpSocket":{"port":8080},"periodSeconds":9},
                    "/app-health/d/livez":{"grpc":{"port":8081,"service":"x"}}}"#,
            ),
        ])
        .unwrap();
        assert_eq!(settings.node_metadata["OWNER"], "cart");
        assert_eq!(settings.app_metrics[0].path, "/metrics");
        assert_eq!(settings.app_metrics[1].scheme, Scheme::Https);
        assert_eq!(settings.app_probes.len(), 3);
    }

    #[test]
    fn threads_are_what_the_limit_has_room_for() {
        let threads = |limit: &str| {
            let changes = [("MESHWRIGHT_CONCURRENCY", "0"), ("MESHWRIGHT_CPU_LIMIT", limit)];
            settings(&changes).unwrap().concurrency
        };
        assert_eq!((threads("500"), threads("2000"), threads("2001")), (1, 2, 3));
        assert_eq!(threads(""), 0, "without a limit it is left to Envoy");
        let fixed = [("MESHWRIGHT_CONCURRENCY", "4"), ("MESHWRIGHT_CPU_LIMIT", "500")];
        assert_eq!(settings(&fixed).unwrap().concurrency, 4);
    }

    #[test]
    fn a_service_is_looked_up_by_its_whole_name() {
        let name =
            |address: &str| address.parse::<Discovery>().unwrap().lookup_name("cluster.local");
        assert_eq!(name("a.b.svc:15012"), "a.b.svc.cluster.local.");
        assert_eq!(name("a.example.org:1"), "a.example.org");
        assert_eq!(name("[::1]:1"), "::1");
    }
}
