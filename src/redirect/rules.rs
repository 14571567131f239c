//! The plan as chains of rules, for one family of addresses. Pure.

use crate::redirect::{Capture, Cidr, RedirectPlan};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    fn holds(self, cidr: &Cidr) -> bool {
        cidr.address.is_ipv4() == (self == Self::V4)
    }

    fn loopback(self) -> Cidr {
        match self {
            Self::V4 => Cidr { address: [127, 0, 0, 1].into(), prefix: 32 },
            Self::V6 => Cidr { address: [0, 0, 0, 0, 0, 0, 0, 1_u16].into(), prefix: 128 },
        }
    }

    /// The address from which the proxy talks to its own application.
    fn passthrough(self) -> Cidr {
        match self {
            Self::V4 => Cidr { address: [127, 0, 0, 6].into(), prefix: 32 },
            Self::V6 => Cidr { address: [0, 0, 0, 0, 0, 0, 0, 6_u16].into(), prefix: 128 },
        }
    }
}

/// Where the kernel enters a chain by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Packets that arrive.
    Prerouting,
    /// Packets that a process of the pod sends.
    Output,
}

/// One condition on a packet. All are about TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Towards one of the pod's own addresses.
    Loopback,
    Source(Cidr),
    Destination(Cidr),
    NotDestination(Cidr),
    DestinationPort(u16),
    User(u32),
    NotUser(u32),
    Group(u32),
    NotGroup(u32),
}

/// What becomes of a packet that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it alone.
    Return,
    /// Send it to this local port.
    Redirect(u16),
    /// Go on in this chain.
    Jump(&'static str),
}

/// All conditions hold → the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub when: Vec<Match>,
    pub then: Verdict,
}

/// A chain of rules in the NAT table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    /// The hook from which the kernel comes here, for two of the chains.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

const INBOUND: &str = "MESHWRIGHT_INBOUND";
const OUTPUT: &str = "MESHWRIGHT_OUTPUT";
const TO_INBOUND: &str = "MESHWRIGHT_IN_REDIRECT";
const TO_PROXY: &str = "MESHWRIGHT_REDIRECT";

/// The chains for `family`; those that are jumped to come first.
pub fn rules(plan: &RedirectPlan, family: Family) -> Vec<Chain> {
    let redirect = |port| vec![Rule { when: Vec::new(), then: Verdict::Redirect(port) }];
    vec![
        Chain { name: TO_PROXY, hook: None, rules: redirect(plan.proxy_port) },
        Chain { name: TO_INBOUND, hook: None, rules: redirect(plan.inbound_port) },
        Chain { name: INBOUND, hook: Some(Hook::Prerouting), rules: inbound(plan) },
        Chain { name: OUTPUT, hook: Some(Hook::Output), rules: outbound(plan, family) },
    ]
}

fn inbound(plan: &RedirectPlan) -> Vec<Rule> {
    let to_port = |port: &u16, then| Rule { when: vec![Match::DestinationPort(*port)], then };
    let capture = Verdict::Jump(TO_INBOUND);
    let mut rules: Vec<Rule> =
        plan.exclude_inbound_ports.iter().map(|port| to_port(port, Verdict::Return)).collect();
    match &plan.inbound_ports {
        Capture::All => rules.push(Rule { when: Vec::new(), then: capture }),
        Capture::Only(ports) => rules.extend(ports.iter().map(|port| to_port(port, capture))),
    }
    rules
}

fn outbound(plan: &RedirectPlan, family: Family) -> Vec<Rule> {
    let leave = |when: Vec<Match>| Rule { when, then: Verdict::Return };
    let capture = |when: Vec<Match>| Rule { when, then: Verdict::Jump(TO_PROXY) };
    let mut rules: Vec<Rule> = plan
        .exclude_outbound_ports
        .iter()
        .map(|port| leave(vec![Match::DestinationPort(*port)]))
        .collect();
    rules.push(leave(vec![Match::Loopback, Match::Source(family.passthrough())]));
    let owners = [
        (Match::User(plan.proxy_uid), Match::NotUser(plan.proxy_uid)),
        (Match::Group(plan.proxy_gid), Match::NotGroup(plan.proxy_gid)),
    ];
    for (proxy, other) in owners {
        // The application called a service and the proxy chose this very pod: the connection is
        // inbound like any other.
        rules.push(Rule {
            when: vec![Match::Loopback, Match::NotDestination(family.loopback()), proxy.clone()],
            then: Verdict::Jump(TO_INBOUND),
        });
        // The application talks to itself.
        rules.push(leave(vec![Match::Loopback, other]));
        rules.push(leave(vec![proxy]));
    }
    rules.push(leave(vec![Match::Destination(family.loopback())]));
    let excluded = plan.exclude_outbound_cidrs.iter().filter(|cidr| family.holds(cidr));
    rules.extend(excluded.map(|cidr| leave(vec![Match::Destination(*cidr)])));
    match &plan.outbound_cidrs {
        Capture::All => rules.push(capture(Vec::new())),
        Capture::Only(cidrs) => {
            let cidrs = cidrs.iter().filter(|cidr| family.holds(cidr));
            rules.extend(cidrs.map(|cidr| capture(vec![Match::Destination(*cidr)])));
        }
    }
    rules
}
