//! Where the rules lead a connection that a process of the pod begins: what the kernel does with
//! them, without the kernel.

use std::net::{IpAddr, SocketAddr};

use super::{Hook, Match, Property, Protocol, Rule, Ruleset, Table, Verdict};
use crate::redirect::Cidr;

/// A connection that a process begins.
#[derive(Clone, Debug)]
pub struct Connection<'a> {
    pub protocol: Protocol,
    /// The interface by which it would leave.
    pub interface: &'a str,
    pub source: IpAddr,
    pub destination: SocketAddr,
    pub uid: u32,
    pub gid: u32,
}

/// The local port to which address translation sends the connection, if it does.
pub fn destination(rules: &Ruleset, connection: &Connection<'_>) -> Option<u16> {
    let entries = rules.entries.iter();
    let entries = entries.filter(|e| e.table == Table::Nat && e.hook == Hook::Output);
    let entries: Vec<&Rule> = entries.map(|entry| &entry.rule).collect();
    match follow(rules, &entries, connection) {
        Some(Verdict::Redirect(port)) => Some(port),
        _ => None,
    }
}

/// The verdict at which a chain ends, if at one.
fn follow(rules: &Ruleset, chain: &[&Rule], connection: &Connection<'_>) -> Option<Verdict> {
    for rule in chain.iter().filter(|rule| connection.fits(rule)) {
        match rule.then {
            Verdict::Return => return None,
            Verdict::Jump(name) => {
                let chain = rules.chains.iter().filter(|chain| chain.name == name);
                let chain: Vec<&Rule> = chain.flat_map(|chain| &chain.rules).collect();
                let ended = follow(rules, &chain, connection);
                if ended.is_some() {
                    return ended;
                }
            }
            verdict => return Some(verdict),
        }
    }
    None
}

impl Connection<'_> {
    fn fits(&self, rule: &Rule) -> bool {
        rule.protocol.is_none_or(|protocol| protocol == self.protocol)
            && rule.when.iter().all(|condition| match condition {
                Match::Is(property) => self.has(property),
                Match::Not(property) => !self.has(property),
            })
    }

    fn has(&self, property: &Property) -> bool {
        match property {
            Property::Out(interface) => interface.matches(self.interface),
            Property::Source(cidr) => within(*cidr, self.source),
            Property::Destination(cidr) => within(*cidr, self.destination.ip()),
            Property::DestinationPort(port) => *port == self.destination.port(),
            Property::User(uid) => *uid == self.uid,
            Property::Group(gid) => *gid == self.gid,
            // A connection that begins has no marks, and no rule here asks where it came in.
            Property::In(_)
            | Property::SourcePort(_)
            | Property::Mark(_)
            | Property::ConnectionMark(_)
            | Property::Tracked(_) => false,
        }
    }
}

fn within(cidr: Cidr, address: IpAddr) -> bool {
    address.is_ipv4() == cidr.address.is_ipv4()
        && Cidr::new(address, cidr.prefix).address == cidr.address
}
