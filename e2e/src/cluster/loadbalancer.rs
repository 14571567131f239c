//! The cluster's load balancer: gives Services of type LoadBalancer an address that kube-proxy then
//! serves and that the machine has a route to.
//!
//! A process of its own, since the demo ends and its cluster stays. It follows one watch, so it costs
//! nothing while nothing changes.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Deserializer, Value, json};

use crate::{process, steps};

/// Addresses in use, by `namespace/name`.
#[derive(Debug, Default)]
struct Addresses {
    range: String,
    given: BTreeMap<String, String>,
}

/// Serves until it is killed.
pub fn serve(kubectl: &Path, range: &str) -> Result<()> {
    loop {
        // A watch ends now and then; what it lists first is the state to go on from.
        let mut addresses = Addresses { range: range.to_owned(), given: existing(kubectl) };
        if let Err(error) = follow(kubectl, &mut addresses) {
            steps::print_error(&error);
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn existing(kubectl: &Path) -> BTreeMap<String, String> {
    let list = process::output(Command::new(kubectl).args(["get", "services", "-A", "-o", "json"]));
    let list: Value =
        list.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let services = list["items"].as_array().into_iter().flatten();
    services.filter_map(|service| Some((key(service)?, current(service)?.to_owned()))).collect()
}

fn follow(kubectl: &Path, addresses: &mut Addresses) -> Result<()> {
    let mut watch = process::spawn(
        Command::new(kubectl)
            .args(["get", "services", "-A", "-o", "json", "--watch", "--output-watch-events"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped()),
    )?;
    let events = watch.stdout.take().context("the watch has no output")?;
    for event in Deserializer::from_reader(events).into_iter::<Value>() {
        let event = event?;
        if let Some(patch) = addresses.react(&event)
            && let Err(error) = set_status(kubectl, &event["object"], &patch)
        {
            steps::print_error(&error);
        }
    }
    watch.wait()?;
    Ok(())
}

fn set_status(kubectl: &Path, service: &Value, ingress: &Value) -> Result<()> {
    let name = service["metadata"]["name"].as_str().context("a service without a name")?;
    let namespace =
        service["metadata"]["namespace"].as_str().context("a service without a namespace")?;
    let patch = json!({"status": {"loadBalancer": {"ingress": ingress}}}).to_string();
    process::run(
        Command::new(kubectl)
            .args(["patch", "service", name, "-n", namespace, "--subresource=status"])
            .args(["--type=merge", "-p", &patch]),
    )
    .with_context(|| format!("cannot give {namespace}/{name} an address"))
}

impl Addresses {
    /// What the service's `loadBalancer.ingress` must become, if it must change.
    fn react(&mut self, event: &Value) -> Option<Value> {
        let service = &event["object"];
        let key = key(service)?;
        if event["type"] == "DELETED" || service["spec"]["type"] != "LoadBalancer" {
            self.given.remove(&key);
            let stale = event["type"] != "DELETED" && current(service).is_some();
            return stale.then_some(Value::Null);
        }
        let address = self.address(key, service["spec"]["loadBalancerIP"].as_str())?;
        (current(service) != Some(&address)).then(|| json!([{"ip": address, "ipMode": "VIP"}]))
    }

    /// The address of a service, the same for as long as it exists.
    fn address(&mut self, key: String, wanted: Option<&str>) -> Option<String> {
        if let Some(address) = self.given.get(&key) {
            return Some(address.clone());
        }
        let is_free = |address: &String| !self.given.values().any(|taken| taken == address);
        let wanted = wanted.map(str::to_owned).filter(is_free);
        let address = wanted
            .or_else(|| (10..=250).map(|last| format!("{}.{last}", self.range)).find(is_free))?;
        self.given.insert(key, address.clone());
        Some(address)
    }
}

fn key(service: &Value) -> Option<String> {
    let metadata = &service["metadata"];
    Some(format!("{}/{}", metadata["namespace"].as_str()?, metadata["name"].as_str()?))
}

fn current(service: &Value) -> Option<&str> {
    service["status"]["loadBalancer"]["ingress"][0]["ip"].as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, name: &str, service: &str, address: Option<&str>) -> Value {
        let ingress = address.map(|ip| json!([{"ip": ip}]));
        json!({"type": kind, "object": {
            "metadata": {"namespace": "a", "name": name},
            "spec": {"type": service},
            "status": {"loadBalancer": {"ingress": ingress}},
        }})
    }

    #[test]
    fn addresses_are_given_once_kept_and_given_again() {
        let mut addresses = Addresses { range: "198.19.0".to_owned(), ..Addresses::default() };
        let first = addresses.react(&event("ADDED", "x", "LoadBalancer", None)).unwrap();
        assert_eq!(first[0]["ip"], "198.19.0.10");
        let second = addresses.react(&event("ADDED", "y", "LoadBalancer", None)).unwrap();
        assert_eq!(second[0]["ip"], "198.19.0.11");
        let settled = event("MODIFIED", "x", "LoadBalancer", Some("198.19.0.10"));
        assert_eq!(addresses.react(&settled), None);
        assert_eq!(addresses.react(&event("DELETED", "x", "LoadBalancer", None)), None);
        let third = addresses.react(&event("ADDED", "z", "LoadBalancer", None)).unwrap();
        assert_eq!(third[0]["ip"], "198.19.0.10");
    }

    #[test]
    fn other_services_lose_what_they_had() {
        let mut addresses = Addresses { range: "198.19.0".to_owned(), ..Addresses::default() };
        assert_eq!(addresses.react(&event("ADDED", "x", "ClusterIP", None)), None);
        let was = event("MODIFIED", "x", "ClusterIP", Some("198.19.0.10"));
        assert_eq!(addresses.react(&was), Some(Value::Null));
    }
}
