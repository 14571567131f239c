//! The xDS server: resources, subscriptions, the session (no I/O) and the service around it.

pub mod names;
pub mod resource;
pub mod server;
pub mod session;
pub mod subscription;
pub mod view;
pub mod wire;

pub use resource::{Resource, ResourceSet, ResourceType};
pub use session::{Rejection, Request, Response, Session, Variant};
pub use view::{Memo, View};
