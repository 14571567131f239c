use hickory_proto::op::Query;

use super::*;
use crate::agent::{dns::wire, mesh::table::tests::table};

/// A question for a name of this type, as a client sends it.
fn question(name: &str, kind: RecordType) -> Question {
    let mut message = hickory_proto::op::Message::query();
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    match wire::receive(&message.to_vec().unwrap()) {
        wire::Received::Asked(request) => request.question,
        other => panic!("{other:?}"),
    }
}

fn mesh() -> Table {
    table(&[
        "cart.shop.svc.cluster.local 10.96.0.1",
        "dual.shop.svc.cluster.local 10.96.0.2 fd00::2",
        "many.shop.svc.cluster.local 10.0.0.1 10.0.0.2 10.0.0.3",
        "db.shop.svc.cluster.local -> db.example.com",
        "front.shop.svc.cluster.local -> cart.shop.svc.cluster.local",
        "empty.shop.svc.cluster.local",
        "api.example.com 240.0.0.1",
        "*.wild.example.com 240.0.0.2",
        "one.circle.com -> two.circle.com",
        "two.circle.com -> one.circle.com",
    ])
}

fn ask_with(search: &[&str], name: &str, kind: RecordType, rotation: usize) -> Decision {
    let search: Vec<String> = search.iter().map(ToString::to_string).collect();
    let domains = Domains::new("shop", "cluster.local");
    decide(&mesh(), &domains, &search, &question(name, kind), rotation)
}

/// As the resolver of a pod in the namespace shop asks, its answer as text.
fn ask(name: &str, kind: RecordType) -> String {
    let search = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.net"];
    text_of(&ask_with(&search, name, kind, 0))
}

fn text_of(decision: &Decision) -> String {
    let line = |records: &[Record]| {
        let texts = records.iter().map(|record| match &record.data {
            Data::Address(address) => address.to_string(),
            Data::Alias(name) => format!("-> {name}"),
        });
        texts.collect::<Vec<_>>().join(" ")
    };
    match decision {
        Decision::Answer(records) => line(records),
        Decision::Chase { aliases, target } => format!("{} then {target}", line(aliases)),
        Decision::Forward { exists: true } => "forward, it exists".to_owned(),
        Decision::Forward { exists: false } => "forward".to_owned(),
    }
}

#[test]
fn a_host_has_its_addresses() {
    assert_eq!(ask("cart.shop.svc.cluster.local", RecordType::A), "10.96.0.1");
    assert_eq!(ask("CART.shop.SVC.cluster.local", RecordType::A), "10.96.0.1");
    assert_eq!(ask("dual.shop.svc.cluster.local", RecordType::AAAA), "fd00::2");
    assert_eq!(ask("dual.shop.svc.cluster.local", RecordType::ANY), "10.96.0.2 fd00::2");
    assert_eq!(ask("api.example.com", RecordType::A), "240.0.0.1");
    assert_eq!(ask("other.example.com", RecordType::A), "forward");
}

#[test]
fn a_host_without_an_address_of_the_family_exists_all_the_same() {
    assert_eq!(ask("cart.shop.svc.cluster.local", RecordType::AAAA), "");
    assert_eq!(ask("api.example.com", RecordType::AAAA), "");
    assert_eq!(ask("api.example.com", RecordType::HTTPS), "", "hints would lead past the mesh");
}

#[test]
fn other_types_are_upstreams() {
    for kind in [RecordType::SRV, RecordType::TXT, RecordType::MX, RecordType::NS] {
        assert_eq!(ask("api.example.com", kind), "forward, it exists");
    }
    assert_eq!(ask("1.0.96.10.in-addr.arpa", RecordType::PTR), "forward");
}

#[test]
fn a_service_without_ready_pods_is_upstreams() {
    assert_eq!(ask("empty.shop.svc.cluster.local", RecordType::A), "forward");
}

#[test]
fn the_first_expansion_brings_what_the_last_would() {
    for (asked, host, address) in [
        ("api.example.com.shop.svc.cluster.local", "api.example.com.", "240.0.0.1"),
        ("x.wild.example.com.shop.svc.cluster.local", "x.wild.example.com.", "240.0.0.2"),
        ("cart.shop.shop.svc.cluster.local", "cart.shop.svc.cluster.local.", "10.96.0.1"),
        ("cart.shop.svc.shop.svc.cluster.local", "cart.shop.svc.cluster.local.", "10.96.0.1"),
    ] {
        assert_eq!(ask(asked, RecordType::A), format!("-> {host} {address}"), "{asked}");
        assert_eq!(ask(asked, RecordType::AAAA), format!("-> {host}"), "{asked}");
    }
    assert_eq!(ask("www.example.org.shop.svc.cluster.local", RecordType::A), "forward");
    assert_eq!(ask("shop.svc.cluster.local", RecordType::A), "forward");
}

#[test]
fn short_forms_need_no_search_list() {
    for short in ["cart", "cart.shop", "cart.shop.svc"] {
        let got = text_of(&ask_with(&[], short, RecordType::A, 0));
        assert_eq!(got, "-> cart.shop.svc.cluster.local. 10.96.0.1", "{short}");
    }
    assert_eq!(ask("cart.other", RecordType::A), "forward");
}

#[test]
fn wildcards_cover_names_under_them() {
    assert_eq!(ask("a.wild.example.com", RecordType::A), "240.0.0.2");
    assert_eq!(ask("a.b.wild.example.com", RecordType::A), "240.0.0.2");
    assert_eq!(ask("wild.example.com", RecordType::A), "forward");
}

#[test]
fn aliases_are_followed_in_the_mesh_and_upstream() {
    assert_eq!(
        ask("front.shop.svc.cluster.local", RecordType::A),
        "-> cart.shop.svc.cluster.local. 10.96.0.1"
    );
    assert_eq!(
        ask("db.shop.svc.cluster.local", RecordType::A),
        "-> db.example.com. then db.example.com."
    );
    assert_eq!(ask("db.shop.svc.cluster.local", RecordType::CNAME), "-> db.example.com.");
    assert_eq!(
        ask("db.shop", RecordType::A),
        "-> db.shop.svc.cluster.local. -> db.example.com. then db.example.com."
    );
    let circle = ask("one.circle.com", RecordType::A);
    assert_eq!(circle.matches("->").count(), MOST_ALIASES - 1, "a circle ends: {circle}");
}

#[test]
fn addresses_take_turns() {
    let first =
        |rotation| text_of(&ask_with(&[], "many.shop.svc.cluster.local", RecordType::A, rotation));
    assert_eq!(first(0), "10.0.0.1 10.0.0.2 10.0.0.3");
    assert_eq!(first(1), "10.0.0.2 10.0.0.3 10.0.0.1");
    assert_eq!(first(5), "10.0.0.3 10.0.0.1 10.0.0.2");
}

#[test]
fn nothing_known_forwards_everything() {
    let question = question("cart.shop.svc.cluster.local", RecordType::A);
    let domains = Domains::new("shop", "cluster.local");
    let got = decide(&Table::default(), &domains, &[], &question, 0);
    assert_eq!(got, Decision::Forward { exists: false });
}
