//! Kubernetes objects as JSON, which kubectl takes as well as YAML, and in which no value can break
//! out of its place.

use anyhow::Result;
use serde_json::{Value, json};

use super::client::PROGRAM;
use crate::cluster::Cluster;

/// Applies objects in the order given.
pub fn apply(cluster: &Cluster, items: &[Value]) -> Result<()> {
    cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string())
}

/// Waits until every one of the workloads (`deploy/NAME`) is rolled out.
pub fn rolled_out(cluster: &Cluster, namespace: &str, workloads: &[&str]) -> Result<()> {
    for workload in workloads {
        cluster.kubectl(&[
            "rollout",
            "status",
            "--namespace",
            namespace,
            workload,
            "--timeout=180s",
        ])?;
    }
    Ok(())
}

/// A namespace, in the mesh or not.
pub fn namespace(name: &str, meshed: bool) -> Value {
    let injection = if meshed { "enabled" } else { "disabled" };
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"meshwright.dev/injection": injection}},
    })
}

/// A namespace that says nothing about the mesh.
pub fn unlabelled_namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A Deployment of the test application with a service account of its own.
pub struct Workload<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    /// Label `app`, and the name that it answers with.
    pub app: &'a str,
    pub version: &'a str,
    pub replicas: u32,
    /// Subcommand and flags.
    pub args: Vec<String>,
    pub readiness: Option<Value>,
}

impl<'a> Workload<'a> {
    /// A server with these flags, ready when its `--http` port answers.
    pub fn server(namespace: &'a str, name: &'a str, version: &'a str, flags: &[&str]) -> Self {
        let identity = ["serve", "--name", name, "--version", version];
        Self {
            namespace,
            name,
            app: name,
            version,
            replicas: 1,
            args: identity.iter().chain(flags).map(|&flag| flag.to_owned()).collect(),
            readiness: None,
        }
    }

    /// A pod to make requests from.
    pub fn client(namespace: &'a str, name: &'a str) -> Self {
        let args = vec!["pause".to_owned()];
        Self { args, ..Self::server(namespace, name, "v1", &[]) }
    }

    /// The kubelet asks this port whether it accepts before the pod counts as ready.
    pub fn ready_on(self, port: u16) -> Self {
        let readiness = json!({"tcpSocket": {"port": port}, "periodSeconds": 1});
        Self { readiness: Some(readiness), ..self }
    }

    pub fn replicas(self, replicas: u32) -> Self {
        Self { replicas, ..self }
    }

    /// The label and the account of another workload: a version of the same service.
    pub fn of_app(self, app: &'a str) -> Self {
        let mut args = self.args;
        if let Some(name) = args.iter().position(|arg| arg == "--name") {
            app.clone_into(&mut args[name + 1]);
        }
        Self { app, args, ..self }
    }

    /// The ServiceAccount and the Deployment.
    pub fn objects(&self, image: &str) -> [Value; 2] {
        [self.service_account(), self.deployment(image)]
    }

    fn service_account(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": self.namespace, "name": self.app},
        })
    }

    fn deployment(&self, image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.app, "version": self.version}},
                "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": self.template(image),
            },
        })
    }

    /// A StatefulSet behind a headless service.
    pub fn stateful_set(&self, image: &str, service: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "serviceName": service,
                "replicas": self.replicas,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": {"app": self.app, "version": self.version}},
                "template": self.template(image),
            },
        })
    }

    fn template(&self, image: &str) -> Value {
        let mut app = container("app", image, &self.args);
        if let Some(readiness) = &self.readiness {
            app["readinessProbe"] = readiness.clone();
        }
        json!({
            "metadata": {"labels": {"app": self.app, "version": self.version}},
            "spec": {
                "serviceAccountName": self.app,
                "terminationGracePeriodSeconds": 30,
                "containers": [app],
            },
        })
    }
}

/// A container that runs the test application.
pub fn container(name: &str, image: &str, args: &[String]) -> Value {
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PROGRAM],
        "args": args,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    })
}

/// A port of a Service.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub app_protocol: Option<String>,
    pub number: u16,
    pub target: u16,
}

impl Port {
    /// A port that says by its name what it speaks.
    pub fn named(name: &str, number: u16, target: u16) -> Self {
        Self { name: name.to_owned(), app_protocol: None, number, target }
    }

    fn json(&self) -> Value {
        let mut json = json!({"name": self.name, "port": self.number, "targetPort": self.target, "protocol": "TCP"});
        if let Some(protocol) = &self.app_protocol {
            json["appProtocol"] = json!(protocol);
        }
        json
    }
}

/// A Service in front of the pods with label `app`.
pub fn service(namespace: &str, name: &str, app: &str, ports: &[Port]) -> Value {
    let ports: Vec<Value> = ports.iter().map(Port::json).collect();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": app}, "ports": ports},
    })
}

/// A Service without an address of its own.
pub fn headless_service(namespace: &str, name: &str, app: &str, ports: &[Port]) -> Value {
    let mut service = service(namespace, name, app, ports);
    service["spec"]["clusterIP"] = json!("None");
    service
}

/// Which connections a namespace's pods accept.
pub fn peer_authentication(namespace: &str, mode: &str) -> Value {
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"namespace": namespace, "name": "default"},
        "spec": {"mtls": {"mode": mode}},
    })
}

/// A VirtualService with HTTP rules.
pub fn virtual_service(namespace: &str, name: &str, hosts: &[&str], http: &Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"hosts": hosts, "http": http},
    })
}

/// A DestinationRule with a subset for each version.
pub fn destination_rule(namespace: &str, host: &str, versions: &[&str]) -> Value {
    let subset = |version: &&str| json!({"name": version, "labels": {"version": version}});
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
        "metadata": {"namespace": namespace, "name": host},
        "spec": {"host": host, "subsets": versions.iter().map(subset).collect::<Vec<_>>()},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_of_a_service_answers_with_the_services_name() {
        let workload = Workload::server("shop", "catalog-v2", "v2", &["--http", "8080"])
            .of_app("catalog")
            .ready_on(8080);
        let [account, deployment] = workload.objects("testapp:1");
        assert_eq!(account["metadata"]["name"], "catalog");
        assert_eq!(deployment["metadata"]["name"], "catalog-v2");
        let pod = &deployment["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"], json!({"app": "catalog", "version": "v2"}));
        assert_eq!(pod["spec"]["serviceAccountName"], "catalog");
        assert_eq!(
            pod["spec"]["containers"][0]["args"],
            json!(["serve", "--name", "catalog", "--version", "v2", "--http", "8080"])
        );
        assert_eq!(pod["spec"]["containers"][0]["readinessProbe"]["tcpSocket"]["port"], 8080);
    }

    #[test]
    fn ports_carry_what_they_declare() {
        let ports = [
            Port::named("http-web", 80, 8080),
            Port {
                name: "a".to_owned(),
                app_protocol: Some("grpc".to_owned()),
                number: 81,
                target: 50051,
            },
        ];
        let service = service("shop", "front", "front", &ports);
        let ports = &service["spec"]["ports"];
        assert_eq!(ports[0]["appProtocol"], Value::Null);
        assert_eq!(ports[1]["appProtocol"], "grpc");
        assert_eq!(ports[1]["targetPort"], 50051);
    }
}
