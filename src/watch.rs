//! The API server, as one immutable [`Snapshot`] after another.

pub mod snapshot;

pub use snapshot::{Key, Snapshot};
