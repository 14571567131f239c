//! Where connections go: to the proxy, to the agent's DNS, or where they wanted.

use super::{
    Hook, Match, Property, Rule, Ruleset, Scope, Table, Verdict, on_loopback, only, to, to_port,
};
use crate::redirect::{
    Capture, Interface, Mode,
    plan::{DNS_PORT, PROBE_PORT},
};

const TO_PROXY: &str = "MESHWRIGHT_REDIRECT";
const TO_INBOUND: &str = "MESHWRIGHT_IN_REDIRECT";
const TO_DNS: &str = "MESHWRIGHT_DNS";
const INBOUND: &str = "MESHWRIGHT_INBOUND";
const REROUTE: &str = "MESHWRIGHT_REROUTE";
const OUTPUT: &str = "MESHWRIGHT_OUTPUT";

pub(super) fn add(scope: &Scope<'_>, all: &mut Ruleset) {
    let plan = scope.plan;
    let redirect = |port| vec![Rule::tcp(Vec::new(), Verdict::Redirect(port))];
    all.chain(Table::Nat, TO_PROXY, redirect(plan.proxy_port));
    if plan.mode == Mode::Redirect {
        all.chain(Table::Nat, TO_INBOUND, redirect(plan.inbound_port));
        all.chain(Table::Nat, INBOUND, inbound(scope));
    }
    if !plan.reroute_interfaces.is_empty() {
        all.chain(Table::Nat, REROUTE, destinations(scope));
    }
    if !scope.dns().is_empty() {
        all.chain(Table::Nat, TO_DNS, dns(scope));
    }
    all.chain(Table::Nat, OUTPUT, output(scope));
    enter(scope, all);
}

fn enter(scope: &Scope<'_>, all: &mut Ruleset) {
    // Virtual machines come first: what they send is outbound, whatever interface it comes in by.
    for interface in &scope.plan.reroute_interfaces {
        let when = vec![Match::Is(Property::In(interface.clone()))];
        all.entry(Table::Nat, Hook::Prerouting, Rule::tcp(when, Verdict::Jump(REROUTE)));
    }
    if scope.plan.mode == Mode::Redirect {
        let rule = Rule::tcp(Vec::new(), Verdict::Jump(INBOUND));
        for rule in scope.by_interface(Property::In, None, &rule) {
            all.entry(Table::Nat, Hook::Prerouting, rule);
        }
    }
    let jump = Verdict::Jump(OUTPUT);
    let rule = if scope.dns().is_empty() {
        Rule::tcp(Vec::new(), jump)
    } else {
        Rule::new(Vec::new(), jump)
    };
    for rule in scope.by_interface(Property::Out, Some(Interface::loopback()), &rule) {
        all.entry(Table::Nat, Hook::Output, rule);
    }
}

fn inbound(scope: &Scope<'_>) -> Vec<Rule> {
    let plan = scope.plan;
    let left = plan.exclude_interfaces.iter().chain(&plan.reroute_interfaces);
    let mut rules: Vec<Rule> = left
        .map(|interface| {
            Rule::new(vec![Match::Is(Property::In(interface.clone()))], Verdict::Return)
        })
        .collect();
    let excluded = plan.exclude_inbound_ports.iter();
    rules.extend(excluded.map(|port| Rule::tcp(vec![to_port(*port)], Verdict::Return)));
    let capture = Verdict::Jump(TO_INBOUND);
    match &plan.inbound_ports {
        Capture::All => rules.push(Rule::tcp(Vec::new(), capture)),
        Capture::Only(ports) => {
            rules.extend(ports.iter().map(|port| Rule::tcp(vec![to_port(*port)], capture)));
        }
    }
    rules
}

/// The order is a contract with users: excluded interfaces and ports hold for everybody, then what
/// the pod says to itself is sorted out, then come users, DNS, and destinations.
fn output(scope: &Scope<'_>) -> Vec<Rule> {
    let plan = scope.plan;
    let leave = |when| Rule::new(when, Verdict::Return);
    let mut rules = vec![probe(scope)];
    let interfaces = plan.exclude_interfaces.iter();
    rules.extend(interfaces.map(|name| leave(vec![Match::Is(Property::Out(name.clone()))])));
    let captures_dns = !scope.dns().is_empty();
    for port in &plan.exclude_outbound_ports {
        rules.push(Rule::tcp(vec![to_port(*port)], Verdict::Return));
        if captures_dns {
            rules.push(Rule::udp(vec![to_port(*port)], Verdict::Return));
        }
    }
    let passthrough = Match::Is(Property::Source(scope.family.passthrough()));
    rules.push(leave(vec![on_loopback(), passthrough]));
    rules.extend(to_itself(scope));
    rules.extend(scope.owners());
    if captures_dns {
        rules.push(Rule::new(Vec::new(), Verdict::Jump(TO_DNS)));
    }
    rules.push(leave(vec![to(scope.family.loopback())]));
    rules.extend(destinations(scope));
    rules
}

/// What [`PROBE_PORT`] is for.
fn probe(scope: &Scope<'_>) -> Rule {
    let when = vec![on_loopback(), to(scope.family.passthrough()), to_port(PROBE_PORT)];
    Rule::tcp(when, Verdict::Jump(TO_PROXY))
}

/// The proxy's own connections, and those of the pod to itself.
fn to_itself(scope: &Scope<'_>) -> Vec<Rule> {
    // An answer to a DNS question is not to go through Envoy, nor is a server in the pod to be out
    // of reach of the agent.
    let but_dns = (!scope.dns().is_empty()).then_some(Match::Not(Property::DestinationPort(53)));
    let mut rules = Vec::new();
    if scope.plan.mode == Mode::Redirect {
        for proxy in scope.proxy() {
            // The application called a service and the proxy chose this very pod: the connection is
            // inbound like any other.
            let elsewhere = Match::Not(Property::Destination(scope.family.loopback()));
            let mut when = vec![on_loopback(), elsewhere, proxy];
            when.extend(but_dns.clone());
            rules.push(Rule::tcp(when, Verdict::Jump(TO_INBOUND)));
        }
    }
    let proxy = scope.proxy().into_iter();
    rules.extend(proxy.map(|proxy| Rule::new(vec![proxy], Verdict::Return)));
    // The application talks to itself, and nobody asked for it by an address of that kind.
    if !captures_loopback(scope) {
        let when = std::iter::once(on_loopback()).chain(but_dns).collect();
        rules.push(Rule::tcp(when, Verdict::Return));
    }
    rules
}

fn captures_loopback(scope: &Scope<'_>) -> bool {
    match &scope.plan.outbound_cidrs {
        Capture::All => false,
        Capture::Only(cidrs) => {
            cidrs.iter().any(|cidr| scope.family.holds(cidr) && cidr.address.is_loopback())
        }
    }
}

/// DNS questions to the agent.
fn dns(scope: &Scope<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for server in scope.dns() {
        let when: Vec<_> =
            server.map(|one| to(only(one))).into_iter().chain([to_port(53)]).collect();
        rules.push(Rule::udp(when.clone(), Verdict::Redirect(DNS_PORT)));
        rules.push(Rule::tcp(when, Verdict::Redirect(DNS_PORT)));
    }
    rules
}

/// What is captured by where it goes.
fn destinations(scope: &Scope<'_>) -> Vec<Rule> {
    let (plan, family) = (scope.plan, scope.family);
    let capture = |when| Rule::tcp(when, Verdict::Jump(TO_PROXY));
    let excluded = plan.exclude_outbound_cidrs.iter().filter(|cidr| family.holds(cidr));
    let mut rules: Vec<Rule> =
        excluded.map(|cidr| Rule::new(vec![to(*cidr)], Verdict::Return)).collect();
    rules.extend(plan.outbound_ports.iter().map(|port| capture(vec![to_port(*port)])));
    match &plan.outbound_cidrs {
        Capture::All => rules.push(capture(Vec::new())),
        Capture::Only(cidrs) => {
            let cidrs = cidrs.iter().filter(|cidr| family.holds(cidr));
            rules.extend(cidrs.map(|cidr| capture(vec![to(*cidr)])));
        }
    }
    rules
}
