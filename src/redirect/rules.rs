//! The plan as chains of rules, for one family of addresses. Pure.

mod mangle;
mod nat;
mod raw;
mod walk;

use std::net::IpAddr;

pub use walk::{Connection, destination};

use crate::redirect::{Capture, Cidr, Dns, Interface, RedirectPlan};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn holds(self, cidr: &Cidr) -> bool {
        cidr.address.is_ipv4() == (self == Self::V4)
    }

    /// The address by which a pod's containers talk to each other.
    pub fn loopback(self) -> Cidr {
        match self {
            Self::V4 => Cidr { address: [127, 0, 0, 1].into(), prefix: 32 },
            Self::V6 => Cidr { address: [0, 0, 0, 0, 0, 0, 0, 1_u16].into(), prefix: 128 },
        }
    }

    /// The address from which the proxy talks to its own application.
    pub fn passthrough(self) -> Cidr {
        match self {
            Self::V4 => Cidr { address: [127, 0, 0, 6].into(), prefix: 32 },
            Self::V6 => Cidr { address: [0, 0, 0, 0, 0, 0, 0, 6_u16].into(), prefix: 128 },
        }
    }
}

/// What a table is for; each sees a packet at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Before connections are tracked.
    Raw,
    /// Before packets are routed.
    Mangle,
    /// Where a connection's addresses are changed.
    Nat,
}

impl Table {
    /// In the order in which they are put in place: who sees the last has all.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];

    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
        }
    }
}

/// Where the kernel enters a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets that a process of the pod sends.
    Output,
}

impl Hook {
    pub const ALL: [Self; 2] = [Self::Prerouting, Self::Output];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What connection tracking says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// It belongs to a connection, or to one that a connection announced.
    Known,
    /// It belongs to none, and cannot begin one.
    Invalid,
}

/// One property of a packet. Ports need a rule with a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// It came in by this interface.
    In(Interface),
    /// It goes out by this interface.
    Out(Interface),
    Source(Cidr),
    Destination(Cidr),
    SourcePort(u16),
    DestinationPort(u16),
    /// A process of this user sent it.
    User(u32),
    Group(u32),
    Mark(u32),
    /// Its connection has this mark.
    ConnectionMark(u32),
    Tracked(Tracked),
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Is(Property),
    Not(Property),
}

/// What becomes of a packet that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it alone, or go back to the chain from which a jump came.
    Return,
    Drop,
    /// Done, in this table.
    Accept,
    /// Send it to this local port.
    Redirect(u16),
    /// Go on in this chain.
    Jump(&'static str),
    /// Give it a mark, and go on.
    SetMark(u32),
    /// Give its connection its mark, and go on.
    SaveMark,
    /// Give it its connection's mark, and go on.
    RestoreMark,
    /// Hand it to the transparent socket on this port, with this mark.
    Tproxy {
        port: u16,
        mark: u32,
    },
    /// Track its connection apart from those of other zones.
    Zone(u16),
}

/// All conditions hold → the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Any, if none.
    pub protocol: Option<Protocol>,
    pub when: Vec<Match>,
    pub then: Verdict,
}

/// A chain of rules. Its name is unique among all tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub table: Table,
    pub name: &'static str,
    pub rules: Vec<Rule>,
}

/// A rule by which the kernel comes to a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub table: Table,
    pub hook: Hook,
    pub rule: Rule,
}

/// All rules of a family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Those that are jumped to come first.
    pub chains: Vec<Chain>,
    pub entries: Vec<Entry>,
}

/// What the names of all our chains begin with.
pub const PREFIX: &str = "MESHWRIGHT_";

/// Packets for the proxy's transparent sockets, and of its connections from clients' addresses.
pub const TPROXY_MARK: u32 = 1337;
/// Packets of the proxy's connections to the pod's own address.
pub const OWN_MARK: u32 = 1338;

/// The rules for `family`.
pub fn rules(plan: &RedirectPlan, family: Family) -> Ruleset {
    let scope = Scope { plan, family };
    let mut all = Ruleset::default();
    raw::add(&scope, &mut all);
    mangle::add(&scope, &mut all);
    nat::add(&scope, &mut all);
    all
}

impl Rule {
    fn new(when: Vec<Match>, then: Verdict) -> Self {
        Self { protocol: None, when, then }
    }

    fn tcp(when: Vec<Match>, then: Verdict) -> Self {
        Self { protocol: Some(Protocol::Tcp), when, then }
    }

    fn udp(when: Vec<Match>, then: Verdict) -> Self {
        Self { protocol: Some(Protocol::Udp), when, then }
    }
}

impl Ruleset {
    fn chain(&mut self, table: Table, name: &'static str, rules: Vec<Rule>) {
        self.chains.push(Chain { table, name, rules });
    }

    fn entry(&mut self, table: Table, hook: Hook, rule: Rule) {
        self.entries.push(Entry { table, hook, rule });
    }

    /// How many rules there are.
    pub fn count(&self) -> usize {
        self.entries.len() + self.chains.iter().map(|chain| chain.rules.len()).sum::<usize>()
    }

    /// The tables in which there is something.
    pub fn tables(&self) -> impl Iterator<Item = Table> {
        Table::ALL.into_iter().filter(|table| self.chains.iter().any(|c| c.table == *table))
    }
}

/// A plan for one family, and what several tables need of it.
struct Scope<'a> {
    plan: &'a RedirectPlan,
    family: Family,
}

impl Scope<'_> {
    /// The DNS servers whose questions are captured; `None` stands for all. Empty: none are.
    fn dns(&self) -> Vec<Option<IpAddr>> {
        if self.plan.exclude_outbound_ports.contains(&53) {
            return Vec::new();
        }
        match &self.plan.dns {
            Dns::Off => Vec::new(),
            Dns::All => vec![None],
            Dns::Servers(servers) => servers
                .iter()
                .filter(|server| server.is_ipv4() == (self.family == Family::V4))
                .map(|server| Some(*server))
                .collect(),
        }
    }

    /// The proxy, as its user or its group.
    fn proxy(&self) -> [Match; 2] {
        let Self { plan, .. } = self;
        [Match::Is(Property::User(plan.proxy_uid)), Match::Is(Property::Group(plan.proxy_gid))]
    }

    /// Rules that leave alone what is not of the users and groups to capture.
    fn owners(&self) -> Vec<Rule> {
        let Self { plan, .. } = self;
        let excluded = plan
            .exclude_outbound_uids
            .iter()
            .map(|uid| Property::User(*uid))
            .chain(plan.exclude_outbound_gids.iter().map(|gid| Property::Group(*gid)));
        let mut rules: Vec<Rule> =
            excluded.map(|owner| Rule::new(vec![Match::Is(owner)], Verdict::Return)).collect();
        if let Capture::Only(uids) = &plan.outbound_uids {
            let none_of = uids.iter().map(|uid| Match::Not(Property::User(*uid))).collect();
            rules.push(Rule::new(none_of, Verdict::Return));
        }
        if let Capture::Only(gids) = &plan.outbound_gids {
            let none_of = gids.iter().map(|gid| Match::Not(Property::Group(*gid))).collect();
            rules.push(Rule::new(none_of, Verdict::Return));
        }
        rules
    }

    /// `rule`, for each interface that is captured. A rule for loopback is `always` among them: the
    /// pod talks to itself there, which no list of interfaces means.
    fn by_interface(
        &self,
        of: fn(Interface) -> Property,
        always: Option<Interface>,
        rule: &Rule,
    ) -> Vec<Rule> {
        let Capture::Only(interfaces) = &self.plan.interfaces else { return vec![rule.clone()] };
        let also = always.filter(|one| !interfaces.contains(one));
        also.iter()
            .chain(interfaces)
            .map(|interface| {
                let condition = Match::Is(of(interface.clone()));
                let when = std::iter::once(condition).chain(rule.when.iter().cloned()).collect();
                Rule { when, ..rule.clone() }
            })
            .collect()
    }
}

fn to_port(port: u16) -> Match {
    Match::Is(Property::DestinationPort(port))
}

fn to(cidr: Cidr) -> Match {
    Match::Is(Property::Destination(cidr))
}

/// All of an address.
fn only(address: IpAddr) -> Cidr {
    Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
}

fn on_loopback() -> Match {
    Match::Is(Property::Out(Interface::loopback()))
}
