//! Counts what a client writes to the API server: whoever does so without end shows here.

use std::task::{Context, Poll};

use http::{Method, Request};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tower::{Layer, Service};

/// Writes by verb and resource. Cheap to clone: all clones count together.
#[derive(Clone, Debug, Default)]
pub struct Writes(Family<Write, Counter>);

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Write {
    verb: &'static str,
    resource: String,
}

impl Writes {
    /// Shows them as `PREFIX_writes_total`.
    pub fn register(&self, registry: &mut Registry, prefix: &str) {
        let registry = registry.sub_registry_with_prefix(prefix);
        registry.register(
            "writes",
            "Requests that change something in the cluster",
            self.0.clone(),
        );
    }

    fn count(&self, method: &Method, path: &str) {
        let verb = match *method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => return,
        };
        self.0.get_or_create(&Write { verb, resource: resource(path) }).inc();
    }
}

/// `deployments` of `/apis/apps/v1/namespaces/a/deployments/b`, with the subresource where there is one.
fn resource(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let group = if parts.first() == Some(&"api") { 2 } else { 3 };
    match parts.get(group..).unwrap_or_default() {
        ["namespaces", _, resource, _, sub, ..] | [resource, _, sub] => format!("{resource}/{sub}"),
        ["namespaces", _, resource, ..] | [resource, ..] => (*resource).to_owned(),
        [] => "other".to_owned(),
    }
}

impl<S> Layer<S> for Writes {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, writes: self.clone() }
    }
}

/// A client whose writes are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    writes: Writes,
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.writes.count(request.method(), request.uri().path());
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_writes_by_resource() {
        let writes = Writes::default();
        let mut registry = Registry::default();
        writes.register(&mut registry, "meshwright_operator");
        writes.count(&Method::GET, "/api/v1/pods");
        writes.count(&Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/b");
        writes.count(&Method::PATCH, "/apis/meshwright.dev/v1alpha1/meshinstallations/m/status");
        writes.count(&Method::DELETE, "/apis/rbac.authorization.k8s.io/v1/clusterroles/c");
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let mut lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        lines.sort_unstable();
        let expected = [
            r#"meshwright_operator_writes_total{verb="delete",resource="clusterroles"} 1"#,
            r#"meshwright_operator_writes_total{verb="patch",resource="deployments"} 1"#,
            r#"meshwright_operator_writes_total{verb="patch",resource="meshinstallations/status"} 1"#,
        ];
        assert_eq!(lines, expected);
    }
}
