//! The API server, as one immutable [`Snapshot`] after another.

pub mod changes;
mod kind;
pub mod snapshot;
mod stream;
mod tables;
mod trim;
mod yaml;

pub use changes::{Changes, Mailbox};
pub use snapshot::{Key, Snapshot};
pub use stream::{Scope, start};
pub use yaml::{Error as YamlError, from_yaml};
