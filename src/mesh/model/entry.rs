//! What a ServiceEntry says about one of its hosts.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{Host, Labels};
use crate::diagnostic::ObjectRef;

/// A host that Kubernetes does not know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub origin: ObjectRef,
    /// Addresses that lead to this host and to no other.
    pub addresses: Vec<IpAddr>,
    /// Whether `addresses` were given by us: then clients reach the host by others, too.
    pub allocated: bool,
    /// Addresses that clients may connect to besides: ranges, and those that several hosts share.
    pub ranges: Vec<AddressRange>,
    pub resolution: Resolution,
    /// Mutual TLS of the mesh is not for it.
    pub external: bool,
}

/// How the endpoints of an entry are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Where the client wanted to go.
    ClientsChoice,
    /// They are in the table of endpoints.
    Endpoints,
    /// Proxies ask DNS. `first_only`: for one address at a time instead of all.
    Dns { endpoints: Vec<DnsEndpoint>, first_only: bool },
}

/// A name, or an address, behind an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsEndpoint {
    pub host: Host,
    /// Its ports by those of the entry.
    pub ports: BTreeMap<u16, u16>,
    pub labels: Labels,
    /// Speaks mesh TLS.
    pub meshed: bool,
}

impl Entry {
    /// Whether an address alone leads to the host, so that no name need be looked at.
    pub fn has_addresses(&self) -> bool {
        !self.addresses.is_empty() || !self.ranges.is_empty()
    }

    /// The addresses that its name stands for; those of a range are for DNS elsewhere to choose.
    pub fn single_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let shared = self.ranges.iter().filter(|range| range.is_single()).map(|r| r.address);
        self.addresses.iter().copied().chain(shared)
    }
}

/// `10.1.0.0/16`; a single address is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    pub address: IpAddr,
    pub prefix: u8,
}

impl AddressRange {
    pub fn is_single(self) -> bool {
        self.prefix == if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address and no range such as 10.1.0.0/16");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|p| *p <= longest).ok_or_else(wrong)?,
            None => longest,
        };
        // Ranges that differ only behind their prefix are one: proxies refuse to be told twice.
        let address = match address {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((ip.to_bits() & mask).into())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((ip.to_bits() & mask).into())
            }
        };
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_told_apart_by_their_prefix_alone() {
        let show = |text: &str| text.parse::<AddressRange>().map(|range| range.to_string());
        assert_eq!(show("10.1.2.3").unwrap(), "10.1.2.3/32");
        assert_eq!(show("10.1.2.3/16").unwrap(), "10.1.0.0/16");
        assert_eq!(show("2001:db8::1/32").unwrap(), "2001:db8::/32");
        assert_eq!(show("0.0.0.0/0").unwrap(), "0.0.0.0/0");
        for text in ["", "10.1.2.3/33", "10.1.2/8", "a.example.com", "::/x"] {
            assert!(show(text).is_err(), "{text}");
        }
    }
}
