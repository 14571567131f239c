//! What the mesh says to a question. Pure.
//!
//! A resolver with a search list asks for `api.example.com` as
//! `api.example.com.shop.svc.cluster.local` first, then with each other domain of the list, and for
//! the name itself last: four questions, or eight with IPv6. The first of them tells the rest, so it
//! is answered at once with what the last would bring: an alias of the host, and the host's
//! addresses. So is a short form (`cart`, `cart.shop`, `cart.shop.svc`) that comes as it is, from a
//! resolver without a search list. What no host of the mesh would match in the end is forwarded
//! untouched.

use std::{borrow::Cow, net::IpAddr};

use hickory_proto::rr::{Name, RecordType};

use crate::agent::{
    dns::wire::{Data, Question, Record},
    mesh::{Table, table::Entry},
};

/// How long what the mesh says may be kept, in seconds. A change reaches the agent at once, but not
/// those who asked before.
pub const TTL: u32 = 30;
/// Aliases of aliases that are followed.
const MOST_ALIASES: usize = 8;
/// Addresses of each family in one answer: as many as surely fit into a message.
const MOST_ADDRESSES: usize = 1000;

/// The domains in which short names stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    /// The pod's own namespace, all services, the cluster.
    cluster: Vec<String>,
}

impl Domains {
    pub fn new(namespace: &str, cluster_domain: &str) -> Self {
        let services = format!("svc.{cluster_domain}");
        Self { cluster: vec![format!("{namespace}.{services}"), services, cluster_domain.into()] }
    }
}

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The whole answer; empty if the name has no such records.
    Answer(Vec<Record>),
    /// The name stands for another that upstream knows.
    Chase { aliases: Vec<Record>, target: Name },
    /// Upstream knows. The name `exists` if the mesh has it, whatever upstream says.
    Forward { exists: bool },
}

/// Decides about a question. `search`: the resolver's list; `rotation` changes with each question.
pub fn decide(
    table: &Table,
    domains: &Domains,
    search: &[String],
    question: &Question,
    rotation: usize,
) -> Decision {
    let unknown = Decision::Forward { exists: false };
    let Some(kind) = question.internet() else { return unknown };
    let asked = question.query.name();
    let Some((canonical, entry)) = lookup(table, domains, search, &text(asked)) else {
        return unknown;
    };
    match kind {
        // Hints of addresses that lead past the mesh are worse than none.
        RecordType::A
        | RecordType::AAAA
        | RecordType::ANY
        | RecordType::HTTPS
        | RecordType::SVCB
        | RecordType::CNAME => {
            resolve(table, asked, canonical.as_deref(), entry, kind, rotation).unwrap_or(unknown)
        }
        _ => Decision::Forward { exists: true },
    }
}

/// The name in lower case, without a dot at its end.
fn text(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

/// The host that a name means, and its own name where that is another.
fn lookup<'a>(
    table: &'a Table,
    domains: &Domains,
    search: &[String],
    name: &str,
) -> Option<(Option<String>, &'a Entry)> {
    // The truth about a host without addresses, as a Service without ready pods, is upstream's.
    let useful = |entry: &&Entry| entry.alias.is_some() || !entry.addresses.is_empty();
    if table.is_empty() {
        return None;
    }
    if let Some(entry) = table.find(name) {
        return useful(&entry).then_some((None, entry));
    }
    let expanded =
        search.first().and_then(|domain| name.strip_suffix(&**domain)?.strip_suffix('.'));
    let bare = expanded.unwrap_or(name);
    for domain in search.iter().chain(&domains.cluster) {
        let host = format!("{bare}.{domain}");
        if let Some(entry) = table.exact(&host).filter(useful) {
            return Some((Some(host), entry));
        }
    }
    expanded?;
    table.find(bare).filter(useful).map(|entry| (Some(bare.to_owned()), entry))
}

/// The records from the asked name to the addresses. `None` if a name of the mesh is none of DNS.
fn resolve<'a>(
    table: &'a Table,
    asked: &Name,
    canonical: Option<&'a str>,
    mut entry: &'a Entry,
    kind: RecordType,
    rotation: usize,
) -> Option<Decision> {
    let mut records = Vec::new();
    let mut owner = asked.clone();
    let mut next = canonical.map(Cow::Borrowed);
    for _ in 0..MOST_ALIASES {
        if let Some(name) = next.take() {
            let target = Name::from_ascii(format!("{name}.")).ok()?;
            records.push(Record { owner, ttl: TTL, data: Data::Alias(target.clone()) });
            owner = target;
        }
        let Some(alias) = entry.alias.as_deref() else {
            records.extend(addresses(&owner, entry, kind, rotation));
            return Some(Decision::Answer(records));
        };
        if let Some(known) = table.find(alias) {
            (entry, next) = (known, Some(Cow::Borrowed(alias)));
            continue;
        }
        let target = Name::from_ascii(format!("{alias}.")).ok()?;
        records.push(Record { owner, ttl: TTL, data: Data::Alias(target.clone()) });
        return Some(match kind {
            RecordType::CNAME => Decision::Answer(records),
            _ => Decision::Chase { aliases: records, target },
        });
    }
    // Aliases in a circle.
    Some(Decision::Answer(records))
}

fn addresses<'a>(
    owner: &'a Name,
    entry: &'a Entry,
    kind: RecordType,
    rotation: usize,
) -> impl Iterator<Item = Record> + 'a {
    let of = move |wanted: bool, v4: bool| {
        let family: Vec<IpAddr> =
            entry.addresses.iter().copied().filter(|a| wanted && a.is_ipv4() == v4).collect();
        let start = rotation.checked_rem(family.len()).unwrap_or(0);
        let length = family.len().min(MOST_ADDRESSES);
        family.into_iter().cycle().skip(start).take(length)
    };
    let any = kind == RecordType::ANY;
    let v4 = of(any || kind == RecordType::A, true);
    let v6 = of(any || kind == RecordType::AAAA, false);
    v4.chain(v6).map(|address| Record {
        owner: owner.clone(),
        ttl: TTL,
        data: Data::Address(address),
    })
}

#[cfg(test)]
mod tests;
