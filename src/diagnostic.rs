//! What a stage has to say about somebody's object: the one form in which the status writer, the
//! admission webhook and the CLI report a problem, so that they cannot disagree.

use std::fmt;

/// Names one Kubernetes object, and the generation of it that was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `group/version`, or `v1` for the core group.
    pub api_version: &'static str,
    pub kind: &'static str,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
    /// `metadata.generation` as read; 0 where the kind has none.
    pub generation: i64,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// How much of the object still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object works; something about it deserves attention.
    Warning,
    /// The named field does not take effect.
    Error,
}

/// One finding about one field of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    pub object: ObjectRef,
    pub severity: Severity,
    /// Path of the field, as kubectl writes it: `spec.http[0].route[1].destination.subset`.
    pub path: String,
    /// A condition reason in CamelCase: `HostNotFound`, `SubsetNotFound`, `UnsupportedField`.
    pub reason: &'static str,
    /// What is wrong and what to do, in one or two sentences, without a final period.
    pub message: String,
}

impl Diagnostic {
    pub fn error(
        object: &ObjectRef,
        path: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            object: object.clone(),
            severity: Severity::Error,
            path: path.into(),
            reason,
            message: message.into(),
        }
    }

    pub fn warning(
        object: &ObjectRef,
        path: impl Into<String>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(object, path, reason, message) }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.path, self.message)
    }
}
