//! The xDS server: resources, subscriptions, the session (no I/O) and the service around it.

pub mod resource;

pub use resource::{Resource, ResourceSet, ResourceType};
