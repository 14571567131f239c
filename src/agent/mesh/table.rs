//! The hosts of the mesh. Made small: every pod has a copy.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use bytes::Bytes;

use crate::xds::names::Host;

/// Hosts by their name: lower case, without a dot at the end; wildcards begin with `*.`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    hosts: HashMap<Box<str>, Entry>,
}

/// How one host resolves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub addresses: Box<[IpAddr]>,
    /// Another host that this one is a name for.
    pub alias: Option<Box<str>>,
    /// As the control plane calls this content.
    version: Box<str>,
}

/// Why a host cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an address has 4 or 16 bytes, and this one has {0}")]
pub struct WrongAddress(usize);

impl Table {
    /// The host of exactly this name.
    pub fn exact(&self, name: &str) -> Option<&Entry> {
        self.hosts.get(name)
    }

    /// The wildcard that covers the name, the longest first.
    pub fn wildcard(&self, name: &str) -> Option<&Entry> {
        let mut pattern = String::with_capacity(name.len() + 1);
        let mut rest = name;
        while let Some((_, parent)) = rest.split_once('.') {
            pattern.clear();
            pattern.push_str("*.");
            pattern.push_str(parent);
            if let Some(entry) = self.hosts.get(pattern.as_str()) {
                return Some(entry);
            }
            rest = parent;
        }
        None
    }

    /// The host of this name, or the wildcard that covers it.
    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.exact(name).or_else(|| self.wildcard(name))
    }

    pub fn insert(&mut self, name: &str, version: &str, host: &Host) -> Result<(), WrongAddress> {
        let addresses = host.addresses.iter().map(|bytes| address(bytes)).collect::<Result<_, _>>();
        let alias = (!host.alias.is_empty()).then(|| normal(&host.alias));
        let entry = Entry { addresses: addresses?, alias, version: version.into() };
        self.hosts.insert(normal(name), entry);
        Ok(())
    }

    pub fn remove(&mut self, name: &str) {
        self.hosts.remove(&normal(name));
        // A mesh that shrank must not keep the memory of its greatest day.
        if self.hosts.len() < self.hosts.capacity() / 4 {
            self.hosts.shrink_to_fit();
        }
    }

    /// All hosts with their versions, in the order of their names.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &str, Host)> {
        let ordered: BTreeMap<&str, &Entry> =
            self.hosts.iter().map(|(name, entry)| (&**name, entry)).collect();
        ordered.into_iter().map(|(name, entry)| (name, &*entry.version, entry.host(name)))
    }

    /// What the control plane needs to know to send only what is new.
    pub fn versions(&self) -> impl Iterator<Item = (String, String)> {
        self.hosts.iter().map(|(name, entry)| (name.to_string(), entry.version.to_string()))
    }

    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

impl Entry {
    fn host(&self, name: &str) -> Host {
        let octets = |address: &IpAddr| match address {
            IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
            IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
        };
        Host {
            addresses: self.addresses.iter().map(octets).collect(),
            alias: self.alias.as_deref().unwrap_or_default().to_owned(),
            wildcard: name.starts_with("*."),
        }
    }
}

fn normal(name: &str) -> Box<str> {
    name.trim_end_matches('.').to_ascii_lowercase().into()
}

fn address(bytes: &[u8]) -> Result<IpAddr, WrongAddress> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(octets.into());
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(octets) => Ok(octets.into()),
        Err(_) => Err(WrongAddress(bytes.len())),
    }
}

#[cfg(test)]
pub(in crate::agent) mod tests {
    use super::*;

    /// A table of `HOST ADDRESS...` or `HOST -> ALIAS`.
    pub(in crate::agent) fn table(lines: &[&str]) -> Table {
        let mut table = Table::default();
        for line in lines {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            let alias = rest.strip_prefix("-> ").unwrap_or_default();
            let addresses = rest.split_whitespace().filter_map(|text| text.parse().ok());
            let entry = Entry {
                addresses: addresses.collect(),
                alias: (!alias.is_empty()).then(|| alias.into()),
                version: "1".into(),
            };
            table.hosts.insert(name.into(), entry);
        }
        table
    }

    #[test]
    fn the_longest_wildcard_covers() {
        let table = table(&["*.example.com 10.0.0.1", "*.b.example.com 10.0.0.2"]);
        let first = |name| table.find(name).map(|entry| entry.addresses[0].to_string());
        assert_eq!(first("a.example.com").as_deref(), Some("10.0.0.1"));
        assert_eq!(first("deep.a.example.com").as_deref(), Some("10.0.0.1"));
        assert_eq!(first("a.b.example.com").as_deref(), Some("10.0.0.2"));
        assert_eq!(first("example.com"), None, "a wildcard does not cover its own domain");
    }

    #[test]
    fn names_are_kept_in_lower_case_and_wrong_addresses_are_named() {
        let mut table = Table::default();
        let host =
            |bytes: &[u8]| Host { addresses: vec![bytes.to_vec().into()], ..Host::default() };
        table.insert("Cart.Shop.", "1", &host(&[10, 0, 0, 1])).unwrap();
        assert!(table.exact("cart.shop").is_some());
        let error = table.insert("x", "1", &host(&[1, 2, 3])).unwrap_err().to_string();
        assert_eq!(error, "an address has 4 or 16 bytes, and this one has 3");
        table.remove("cart.SHOP");
        assert!(table.is_empty());
    }

    #[test]
    fn hosts_go_out_as_they_came_in() {
        let hosts = [
            Host {
                addresses: vec![vec![10, 0, 0, 1].into(), vec![7; 16].into()],
                ..Host::default()
            },
            Host { alias: "db.example.com".to_owned(), ..Host::default() },
            Host { addresses: vec![vec![10, 0, 0, 2].into()], wildcard: true, ..Host::default() },
        ];
        let names = ["cart.shop.svc.cluster.local", "db.shop.svc.cluster.local", "*.example.com"];
        let mut table = Table::default();
        for (name, host) in names.iter().zip(&hosts) {
            table.insert(name, "7", host).unwrap();
        }
        let got: BTreeMap<_, _> = table.hosts().map(|(name, _, host)| (name, host)).collect();
        assert_eq!(got, names.into_iter().zip(hosts).collect());
        assert!(table.versions().all(|(_, version)| version == "7"));
    }
}
