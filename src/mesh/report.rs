//! Collects what conversion finds out about one object, with the path of each field.

use std::fmt::{self, Display};

use kube::{Resource, ResourceExt};

use crate::{
    api::Unsupported,
    diagnostic::{Diagnostic, ObjectRef},
};

/// Path of a field, written out only when there is something to say about it.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    Root(&'a str),
    Field(&'a Self, &'a str),
    Index(&'a Self, usize),
    Key(&'a Self, &'a str),
}

impl<'a> Path<'a> {
    pub const SPEC: Self = Path::Root("spec");

    pub fn field(&'a self, name: &'a str) -> Self {
        Path::Field(self, name)
    }

    pub fn index(&'a self, index: usize) -> Self {
        Path::Index(self, index)
    }

    pub fn key(&'a self, key: &'a str) -> Self {
        Path::Key(self, key)
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// Findings about one object.
#[derive(Debug)]
pub struct Report {
    pub object: ObjectRef,
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub fn new<K>(object: &K, api_version: &'static str, kind: &'static str) -> Self
    where
        K: Resource,
    {
        Self {
            object: ObjectRef {
                api_version,
                kind,
                namespace: object.namespace().unwrap_or_default(),
                name: object.name_any(),
                generation: object.meta().generation.unwrap_or_default(),
            },
            diagnostics: Vec::new(),
        }
    }

    pub fn error(&mut self, path: &Path<'_>, reason: &'static str, message: impl Into<String>) {
        let path = path.to_string();
        self.diagnostics.push(Diagnostic::error(&self.object, path, reason, message));
    }

    pub fn warning(&mut self, path: &Path<'_>, reason: &'static str, message: impl Into<String>) {
        let path = path.to_string();
        self.diagnostics.push(Diagnostic::warning(&self.object, path, reason, message));
    }

    /// Says for each field that we do not act on that it has no effect.
    pub fn unsupported(&mut self, path: &Path<'_>, fields: &Unsupported) {
        for name in fields.keys() {
            self.unsupported_field(&path.field(name), "it has no effect, remove it");
        }
    }

    /// Says of one field or value that we do not act on it, with what follows from that.
    pub fn unsupported_field(&mut self, path: &Path<'_>, consequence: &str) {
        let message = format!("is not supported in this version: {consequence}");
        self.error(path, "UnsupportedField", message);
    }
}

/// A part of an object is wrong, and why has been reported.
#[derive(Clone, Copy, Debug)]
pub struct Reported;

/// The value, or `None` after reporting why it is none.
pub trait OrReport<T> {
    fn or_report(self, report: &mut Report, path: &Path<'_>, reason: &'static str) -> Option<T>;
}

impl<T> OrReport<T> for Result<T, String> {
    fn or_report(self, report: &mut Report, path: &Path<'_>, reason: &'static str) -> Option<T> {
        self.map_err(|message| report.error(path, reason, message)).ok()
    }
}
