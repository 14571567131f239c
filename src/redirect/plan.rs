//! What a pod's packets shall do, in words that no tool owns.

use std::collections::BTreeSet;

use crate::redirect::Cidr;

/// Ports of the pod that are the proxy's own: Envoy's metrics, health, the agent.
pub(super) const OWN_PORTS: [u16; 3] = [15020, 15021, 15090];

/// Which of all possible values are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture<T> {
    All,
    /// These; none, if empty.
    Only(BTreeSet<T>),
}

impl<T: Ord> Capture<T> {
    /// `*`, or a list with commas.
    pub(super) fn parse(
        text: &str,
        one: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        list(text, one).map(Self::Only)
    }
}

/// A list with commas; empty for none.
pub(super) fn list<T: Ord>(
    text: &str,
    one: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeSet<T>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect()
}

/// The whole of a pod's redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectPlan {
    /// Where outbound connections go.
    pub proxy_port: u16,
    /// Where inbound connections go.
    pub inbound_port: u16,
    /// Connections of this user or group are the proxy's own, and go where they want.
    pub proxy_uid: u32,
    pub proxy_gid: u32,
    pub inbound_ports: Capture<u16>,
    pub exclude_inbound_ports: BTreeSet<u16>,
    pub outbound_cidrs: Capture<Cidr>,
    pub exclude_outbound_cidrs: BTreeSet<Cidr>,
    pub exclude_outbound_ports: BTreeSet<u16>,
}

impl Default for RedirectPlan {
    fn default() -> Self {
        Self {
            proxy_port: 15001,
            inbound_port: 15006,
            proxy_uid: 1337,
            proxy_gid: 1337,
            inbound_ports: Capture::All,
            exclude_inbound_ports: OWN_PORTS.into(),
            outbound_cidrs: Capture::All,
            exclude_outbound_cidrs: BTreeSet::new(),
            exclude_outbound_ports: BTreeSet::new(),
        }
    }
}
