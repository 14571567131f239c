//! Plans → Envoy resources. Pure; the only stage besides `xds` that knows Envoy's messages.
//!
//! Each resource has a function of its own ([`cluster::service`], [`route::table`],
//! [`outbound::listener`], …); [`outbound()`], [`inbound()`] and [`gateway()`] are loops over those.
//! Equal plans give equal bytes: messages with maps of more than one entry come from [`ordered`].

mod access_log;
pub mod cluster;
pub mod endpoints;
pub mod gateway;
pub mod http;
pub mod inbound;
pub mod listener;
mod message;
pub mod names;
pub mod ordered;
pub mod outbound;
pub mod route;
pub mod secret;
pub mod telemetry;
pub mod tls;
mod tracing;

pub use self::{
    endpoints::endpoints, gateway::gateway, inbound::inbound, outbound::outbound, secret::Secrets,
};
use crate::xds::ResourceSet;

/// What a plan becomes: the resources of each type but endpoints, which have their own path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub clusters: ResourceSet,
    pub listeners: ResourceSet,
    pub routes: ResourceSet,
    pub secrets: ResourceSet,
}
