//! DNS over UDP has its connections tracked in two zones: the application's to the agent, and the
//! agent's to its servers. Without them a question of the agent that has the same ports and addresses
//! as a recent one of the application would be taken for it, and sent back to the agent.

use super::{Hook, Match, Property, Rule, Ruleset, Scope, Table, Verdict, only, to, to_port};
use crate::redirect::{Interface, plan::DNS_PORT};

const OUTGOING: &str = "MESHWRIGHT_DNS_OUT";
const INCOMING: &str = "MESHWRIGHT_DNS_IN";

/// Agent and servers.
const SERVERS: Verdict = Verdict::Zone(1);
/// Application and agent.
const APPLICATION: Verdict = Verdict::Zone(2);

pub(super) fn add(scope: &Scope<'_>, all: &mut Ruleset) {
    if scope.dns().is_empty() {
        return;
    }
    all.chain(Table::Raw, OUTGOING, outgoing(scope));
    all.chain(Table::Raw, INCOMING, incoming(scope));
    let enter = |chain| Rule::udp(Vec::new(), Verdict::Jump(chain));
    let always = Some(Interface::loopback());
    for rule in scope.by_interface(Property::Out, always, &enter(OUTGOING)) {
        all.entry(Table::Raw, Hook::Output, rule);
    }
    for rule in scope.by_interface(Property::In, None, &enter(INCOMING)) {
        all.entry(Table::Raw, Hook::Prerouting, rule);
    }
}

fn outgoing(scope: &Scope<'_>) -> Vec<Rule> {
    let mut rules = Vec::new();
    for proxy in scope.proxy() {
        let from_agent = Match::Is(Property::SourcePort(DNS_PORT));
        rules.push(Rule::udp(vec![to_port(53), proxy.clone()], SERVERS));
        rules.push(Rule::udp(vec![from_agent, proxy], APPLICATION));
    }
    // What is not captured needs no zone. The proxy has its own.
    let leave = |when| Rule::new(when, Verdict::Return);
    rules.extend(scope.proxy().map(|proxy| leave(vec![proxy])));
    let excluded = scope.plan.exclude_interfaces.iter();
    rules.extend(excluded.map(|name| leave(vec![Match::Is(Property::Out(name.clone()))])));
    rules.extend(scope.owners());
    let servers = scope.dns().into_iter();
    rules.extend(servers.map(|server| {
        let to_server = server.map(|one| to(only(one)));
        Rule::udp(to_server.into_iter().chain([to_port(53)]).collect(), APPLICATION)
    }));
    rules
}

fn incoming(scope: &Scope<'_>) -> Vec<Rule> {
    let answer = |server: Option<std::net::IpAddr>| {
        let from = server.map(|one| Match::Is(Property::Source(only(one))));
        let port = Match::Is(Property::SourcePort(53));
        Rule::udp(from.into_iter().chain([port]).collect(), SERVERS)
    };
    scope.dns().into_iter().map(answer).collect()
}
