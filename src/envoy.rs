//! Plans → Envoy resources. Pure; the only stage besides `xds` that knows Envoy's messages.

use crate::xds::ResourceSet;

/// What a plan becomes: the resources of each type but endpoints, which have their own path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    pub clusters: ResourceSet,
    pub listeners: ResourceSet,
    pub routes: ResourceSet,
    pub secrets: ResourceSet,
}
