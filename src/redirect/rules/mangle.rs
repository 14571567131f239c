//! Packets before they are routed: broken ones are dropped, and with transparent sockets those that
//! arrive are handed to the proxy.
//!
//! Transparent sockets change no address, so nothing but marks tells the ways apart:
//!
//! ```text
//! client ──▶ pod:80                               a transparent socket of the proxy takes it
//! proxy, from the client's address ──▶ pod:80     marked 1337 by the socket: let through, and the
//!                                                 mark is kept with the connection
//! application ──▶ the client's address            its connection is marked 1337: not out of the
//!                                                 pod, but to the proxy (policy routing)
//! proxy ──▶ pod:80, as a client of its own pod    marked 1338: taken like a connection from outside
//! ```

use super::{
    Hook, Match, OWN_MARK, Property, Rule, Ruleset, Scope, TPROXY_MARK, Table, Tracked, Verdict,
    on_loopback, to_port,
};
use crate::redirect::{Capture, Interface, Mode};

const INVALID: &str = "MESHWRIGHT_INVALID";
const DIVERT: &str = "MESHWRIGHT_DIVERT";
const TPROXY: &str = "MESHWRIGHT_TPROXY";
const INBOUND: &str = "MESHWRIGHT_INBOUND";
const MARK: &str = "MESHWRIGHT_MARK";

pub(super) fn add(scope: &Scope<'_>, all: &mut Ruleset) {
    if scope.plan.drop_invalid {
        let invalid = Match::Is(Property::Tracked(Tracked::Invalid));
        all.chain(Table::Mangle, INVALID, vec![Rule::new(vec![invalid], Verdict::Drop)]);
        let jump = Rule::new(Vec::new(), Verdict::Jump(INVALID));
        all.entry(Table::Mangle, Hook::Prerouting, jump);
    }
    if scope.plan.mode == Mode::Tproxy {
        transparent(scope, all);
    }
}

fn transparent(scope: &Scope<'_>, all: &mut Ruleset) {
    let (port, mark) = (scope.plan.inbound_port, TPROXY_MARK);
    let rule = |then| Rule::tcp(Vec::new(), then);
    let divert = vec![rule(Verdict::SetMark(mark)), rule(Verdict::Accept)];
    all.chain(Table::Mangle, DIVERT, divert);
    // nftables goes on where no transparent socket listens; nothing may get past the proxy then.
    let tproxy = vec![rule(Verdict::Tproxy { port, mark }), rule(Verdict::Drop)];
    all.chain(Table::Mangle, TPROXY, tproxy);
    all.chain(Table::Mangle, INBOUND, inbound(scope));
    all.chain(Table::Mangle, MARK, output(scope));
    let enter = rule(Verdict::Jump(INBOUND));
    for rule in scope.by_interface(Property::In, Some(Interface::loopback()), &enter) {
        all.entry(Table::Mangle, Hook::Prerouting, rule);
    }
    all.entry(Table::Mangle, Hook::Output, rule(Verdict::Jump(MARK)));
}

fn inbound(scope: &Scope<'_>) -> Vec<Rule> {
    let plan = scope.plan;
    let leave = |when| Rule::new(when, Verdict::Return);
    let by_loopback = || Match::Is(Property::In(Interface::loopback()));
    let marked = || vec![Match::Is(Property::Mark(TPROXY_MARK))];
    let mut rules = vec![
        // The proxy talks to the application in its client's name.
        Rule::new(marked(), Verdict::SaveMark),
        leave(marked()),
        // The agent talks to the application.
        leave(vec![by_loopback(), Match::Is(Property::Source(scope.family.passthrough()))]),
        // The application talks to itself.
        leave(vec![by_loopback(), Match::Not(Property::Mark(OWN_MARK))]),
    ];
    let left = plan.exclude_interfaces.iter().chain(&plan.reroute_interfaces);
    rules.extend(left.map(|name| leave(vec![Match::Is(Property::In(name.clone()))])));
    let excluded = plan.exclude_inbound_ports.iter();
    rules.extend(excluded.map(|port| Rule::tcp(vec![to_port(*port)], Verdict::Return)));
    match &plan.inbound_ports {
        Capture::All => rules.extend(capture(None)),
        Capture::Only(ports) => rules.extend(ports.iter().flat_map(|port| capture(Some(*port)))),
    }
    rules
}

/// A connection that is known has its socket; for a new one it is looked for.
fn capture(port: Option<u16>) -> [Rule; 2] {
    let to = || port.map(to_port);
    let known = Match::Is(Property::Tracked(Tracked::Known));
    [
        Rule::tcp(to().into_iter().chain([known]).collect(), Verdict::Jump(DIVERT)),
        Rule::tcp(to().into_iter().collect(), Verdict::Jump(TPROXY)),
    ]
}

fn output(scope: &Scope<'_>) -> Vec<Rule> {
    let marked = vec![on_loopback(), Match::Is(Property::Mark(TPROXY_MARK))];
    let mut rules = vec![Rule::new(marked, Verdict::Return)];
    for proxy in scope.proxy() {
        let elsewhere = Match::Not(Property::Destination(scope.family.loopback()));
        let mut when = vec![on_loopback(), elsewhere, proxy];
        if !scope.dns().is_empty() {
            // The agent asks a DNS server in the pod.
            when.push(Match::Not(Property::DestinationPort(53)));
        }
        rules.push(Rule::tcp(when, Verdict::SetMark(OWN_MARK)));
    }
    let of_client = vec![Match::Is(Property::ConnectionMark(TPROXY_MARK))];
    rules.push(Rule::new(of_client, Verdict::RestoreMark));
    rules
}
