//! What a pod's packets shall do, in words that no tool owns.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use crate::redirect::Cidr;

/// Ports of the pod that are the proxy's own: Envoy's metrics, health, the agent.
pub(super) const OWN_PORTS: [u16; 3] = [15020, 15021, 15090];
/// Where the agent answers DNS questions, on loopback.
pub const DNS_PORT: u16 = 15053;
/// A connection to this port of the passthrough address always reaches the proxy, whoever begins
/// it, so that anybody in the pod can ask whether the rules are in force.
pub const PROBE_PORT: u16 = 15002;

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

/// How inbound connections come to the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// By address translation: the application sees the proxy's address
    #[default]
    Redirect,
    /// By a transparent socket: the application sees its client's address
    Tproxy,
}

/// Whose DNS questions go to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    Off,
    /// Those for these servers, which /etc/resolv.conf names. A DNS server in the pod that asks
    /// others in turn is not sent back to the agent.
    Servers(BTreeSet<IpAddr>),
    All,
}

/// A network interface's name; one that ends in `+` stands for all that begin so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(String);

/// Why a string is no interface.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not the name of a network interface such as eth1, or the beginning of some such as \
     tap+: it has at most 15 letters, digits, dots, hyphens and underscores"
)]
pub struct InvalidInterface(String);

impl FromStr for Interface {
    type Err = InvalidInterface;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim();
        let stem = name.strip_suffix('+').unwrap_or(name);
        // The kernel allows more, but nobody's interfaces have it, and tools quote it differently.
        let known = |c: char| c.is_ascii_alphanumeric() || ['.', '-', '_'].contains(&c);
        let fits = (1..=15).contains(&name.len()) && !stem.is_empty() && !stem.starts_with('-');
        if fits && stem.chars().all(known) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidInterface(text.to_owned()))
        }
    }
}

impl Interface {
    /// The interface by which the pod talks to itself.
    pub fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The common beginning, if the name stands for several.
    pub fn prefix(&self) -> Option<&str> {
        self.0.strip_suffix('+')
    }

    pub fn matches(&self, name: &str) -> bool {
        self.prefix().map_or(self.0 == name, |prefix| name.starts_with(prefix))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The whole of a pod's redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectPlan {
    pub mode: Mode,
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
    /// Captured even where the range is not.
    pub outbound_ports: BTreeSet<u16>,
    pub exclude_outbound_ports: BTreeSet<u16>,
    /// Interfaces whose traffic is captured, either way.
    pub interfaces: Capture<Interface>,
    pub exclude_interfaces: BTreeSet<Interface>,
    /// What comes in by these is outbound: virtual machines are behind them.
    pub reroute_interfaces: BTreeSet<Interface>,
    /// The application's users and groups whose connections are captured: by both lists.
    pub outbound_uids: Capture<u32>,
    pub exclude_outbound_uids: BTreeSet<u32>,
    pub outbound_gids: Capture<u32>,
    pub exclude_outbound_gids: BTreeSet<u32>,
    pub dns: Dns,
    /// Whether packets of no known connection are dropped.
    pub drop_invalid: bool,
}

impl Default for RedirectPlan {
    fn default() -> Self {
        Self {
            mode: Mode::Redirect,
            proxy_port: 15001,
            inbound_port: 15006,
            proxy_uid: 1337,
            proxy_gid: 1337,
            inbound_ports: Capture::All,
            exclude_inbound_ports: OWN_PORTS.into(),
            outbound_cidrs: Capture::All,
            exclude_outbound_cidrs: BTreeSet::new(),
            outbound_ports: BTreeSet::new(),
            exclude_outbound_ports: BTreeSet::new(),
            interfaces: Capture::All,
            exclude_interfaces: BTreeSet::new(),
            reroute_interfaces: BTreeSet::new(),
            outbound_uids: Capture::All,
            exclude_outbound_uids: BTreeSet::new(),
            outbound_gids: Capture::All,
            exclude_outbound_gids: BTreeSet::new(),
            dns: Dns::Off,
            drop_invalid: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_have_names_that_every_tool_takes() {
        for name in ["eth0", "net1", "tap+", "br-1_x.100"] {
            assert_eq!(name.parse::<Interface>().unwrap().to_string(), name);
        }
        for name in ["", "+", "a-name-that-is-long", "-i", "e th", "a\"b", "a*", "a/b"] {
            assert!(name.parse::<Interface>().is_err(), "{name:?}");
        }
        assert!("tap+".parse::<Interface>().unwrap().matches("tap0"));
        assert!(!"tap".parse::<Interface>().unwrap().matches("tap0"));
    }
}
