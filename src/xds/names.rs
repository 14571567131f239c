//! What agents are told besides what Envoy is: the hosts that applications may ask for, and whether
//! the rest of the pod has finished. Both ends use these messages, so this module knows nothing of
//! how they are made.

use bytes::Bytes;
use prost::Message;

/// Type of [`Host`]: subscribed to by wildcard.
pub const HOST_TYPE_URL: &str = "type.googleapis.com/meshwright.dns.v1.Host";
/// Type of [`Pod`]: subscribed to by the name of the proxy's own pod, `NAMESPACE/POD`.
pub const POD_TYPE_URL: &str = "type.googleapis.com/meshwright.agent.v1.Pod";

/// Key of a node's metadata that says that the stream is an agent's, not an Envoy's.
pub const AGENT_METADATA: &str = "AGENT";

/// What a host name stands for. The resource's name is the whole host in lower case, without a dot
/// at its end: `cart.shop.svc.cluster.local`, `*.example.com`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Host {
    /// Of 4 or 16 bytes each. None: the name exists and has no address now.
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub addresses: Vec<Bytes>,
    /// The name that it is an alias of (CNAME); empty if none.
    #[prost(string, tag = "2")]
    pub alias: String,
    /// Whether it stands for all names below it.
    #[prost(bool, tag = "3")]
    pub wildcard: bool,
}

/// What an agent must know of its own pod.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Pod {
    /// Every other container has ended and will not be started again.
    #[prost(bool, tag = "1")]
    pub applications_finished: bool,
}
