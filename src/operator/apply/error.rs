//! Why an object is not as it should be, in words that say what to do.

use std::fmt;

use kube::{Resource, ResourceExt, core::Status};

/// An object, as people name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: String,
    pub namespace: Option<String>,
    /// Empty for all of the kind.
    pub name: String,
}

impl Key {
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace(),
            name: object.name_any(),
        }
    }

    /// A kind as a whole.
    pub fn kind(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), ..Self::default() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, self.name.as_str()) {
            (_, "") => f.write_str(&self.kind),
            (Some(namespace), name) => write!(f, "{} {namespace}/{name}", self.kind),
            (None, name) => write!(f, "{} {name}", self.kind),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}", explanation(action, object, source))]
    Api { action: &'static str, object: Key, source: Box<kube::Error> },
    #[error("{object} cannot be written as JSON: {source}")]
    Encode { object: Key, source: serde_json::Error },
}

impl Error {
    pub fn api(action: &'static str, object: Key, source: kube::Error) -> Self {
        Self::Api { action, object, source: Box::new(source) }
    }

    pub fn object(&self) -> &Key {
        match self {
            Self::Api { object, .. } | Self::Encode { object, .. } => object,
        }
    }

    /// The reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Api { source, .. } => refusal(source).map_or("Unavailable", reason),
            Self::Encode { .. } => "InvalidObject",
        }
    }

    /// Whether the API server did not answer at all, so that the next call will fare no better.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Api { source, .. } if refusal(source).is_none())
    }

    /// Whether the object has a field that can only be had by making it anew.
    pub fn is_immutable(&self) -> bool {
        self.reason() == "ImmutableField"
    }
}

fn refusal(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// What the API server's answer comes down to.
fn reason(status: &Status) -> &'static str {
    let says = |text: &str| status.message.contains(text);
    match status.code {
        403 if says("exceeded quota") => "QuotaExceeded",
        403 if says("being terminated") => "NamespaceTerminating",
        403 if says("cannot ") => "Forbidden",
        403 => "Refused",
        _ if says("admission webhook") => "Refused",
        404 if says("namespaces ") => "NamespaceMissing",
        404 => "NotFound",
        409 => "Conflict",
        400 | 422
            if says("immutable") || says("cannot change roleRef") || says("may not change") =>
        {
            "ImmutableField"
        }
        400 | 422 => "InvalidObject",
        _ => "Unavailable",
    }
}

fn explanation(action: &str, object: &Key, source: &kube::Error) -> String {
    let Some(status) = refusal(source) else {
        return format!("cannot {action} {object}: the API server cannot be reached: {source}");
    };
    let (namespace, said) = (object.namespace.as_deref().unwrap_or_default(), &status.message);
    match reason(status) {
        "NamespaceMissing" => format!("namespace {namespace} does not exist: create it"),
        "NamespaceTerminating" => {
            format!("namespace {namespace} is being deleted: wait for its end and create it anew")
        }
        "Forbidden" => format!(
            "the operator may not {action} {object}: {said}; give its ClusterRole (or Role) meshwright-operator this verb back"
        ),
        "QuotaExceeded" => {
            format!("cannot {action} {object}: {said}; raise the quota or ask for less")
        }
        "ImmutableField" => format!(
            "cannot {action} {object}: {said}; delete the object, and the operator makes it anew"
        ),
        _ => format!("cannot {action} {object}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        let object = Key {
            kind: "Deployment".to_owned(),
            namespace: Some("edge".to_owned()),
            name: "in".to_owned(),
        };
        Error::api("apply", object, kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn answers_of_the_api_server_become_reasons() {
        let forbidden = r#"deployments.apps "in" is forbidden: User "system:serviceaccount:a:b" cannot patch resource "deployments" in API group "apps" in the namespace "edge""#;
        let terminating = r#"deployments.apps "in" is forbidden: unable to create new content in namespace edge because it is being terminated"#;
        for (code, message, reason) in [
            (403, forbidden, "Forbidden"),
            (403, terminating, "NamespaceTerminating"),
            (
                403,
                r#"services "in" is forbidden: exceeded quota: q, requested: a=1"#,
                "QuotaExceeded",
            ),
            (
                403,
                "deployments is forbidden: ValidatingAdmissionPolicy 'p' denied request",
                "Refused",
            ),
            (400, r#"admission webhook "w" denied the request: no"#, "Refused"),
            (404, r#"namespaces "edge" not found"#, "NamespaceMissing"),
            (
                422,
                r#"Deployment.apps "in" is invalid: spec.selector: field is immutable"#,
                "ImmutableField",
            ),
            (
                422,
                r#"Deployment.apps "in" is invalid: spec.replicas: must be >= 0"#,
                "InvalidObject",
            ),
            (503, "the server is down", "Unavailable"),
        ] {
            assert_eq!(error(code, message).reason(), reason, "{message}");
        }
        let text = error(403, forbidden).to_string();
        assert!(text.contains("cannot patch resource \"deployments\"") && text.contains("edge"));
        let missing = error(404, r#"namespaces "edge" not found"#).to_string();
        assert_eq!(missing, "namespace edge does not exist: create it");
    }
}
