//! Resources of our own that the agents of pods subscribe to: the mesh's hosts, and the state of the
//! agent's own pod. Messages alone: both the control plane and the agent link them.

/// The type of [`Host`] in requests and responses.
pub const HOST_TYPE_URL: &str = "type.googleapis.com/meshwright.dns.v1.Host";
/// The type of [`Pod`] in requests and responses.
pub const POD_TYPE_URL: &str = "type.googleapis.com/meshwright.agent.v1.Pod";

/// How a host of the mesh resolves. The resource's name is the whole host in lower case, without a
/// dot at its end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Host {
    /// 4 or 16 bytes each.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub addresses: Vec<Vec<u8>>,
    /// Another host that this one is a name for.
    #[prost(string, tag = "2")]
    pub alias: String,
    /// The name begins with `*.`.
    #[prost(bool, tag = "3")]
    pub wildcard: bool,
}

/// The pod that the agent runs in. The resource's name is `NAMESPACE/POD`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Pod {
    /// Every other container has ended, and will not be restarted.
    #[prost(bool, tag = "1")]
    pub applications_finished: bool,
}
