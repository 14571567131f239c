use hickory_proto::{
    op::{self, MessageType, Query},
    rr::{
        Name, RData, Record,
        rdata::{A, CNAME, SOA},
    },
};
use proptest::prelude::*;

use super::*;
use crate::agent::dns::wire::{Received, receive};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn message(host: &str) -> op::Message {
    let mut message = op::Message::query();
    message.add_query(Query::query(name(host), RecordType::A));
    message
}

fn question(host: &str) -> Question {
    match receive(&message(host).to_vec().unwrap()) {
        Received::Asked(request) => request.question,
        other => panic!("{other:?}"),
    }
}

/// An answer of address records with these TTLs.
fn answer(host: &str, ttls: &[u32]) -> op::Message {
    let mut answer = message(host);
    answer.metadata.message_type = MessageType::Response;
    for ttl in ttls {
        answer.add_answer(Record::from_rdata(name(host), *ttl, RData::A(A::new(10, 0, 0, 1))));
    }
    answer
}

fn absence(ttl: u32, minimum: u32) -> op::Message {
    let soa = SOA::new(name("b."), name("root.b."), 1, 2, 3, 4, minimum);
    let mut answer = answer("a.b.", &[]);
    answer.add_authority(Record::from_rdata(name("b."), ttl, RData::SOA(soa)));
    answer
}

fn bytes(message: &op::Message) -> Bytes {
    message.to_vec().unwrap().into()
}

#[test]
fn an_answer_is_kept_as_long_as_its_shortest_record() {
    assert_eq!(lifetime(&bytes(&answer("a.b.", &[60, 20, 90]))), Some(20));
    assert_eq!(lifetime(&bytes(&answer("a.b.", &[86_400]))), Some(LONGEST));
    assert_eq!(lifetime(&bytes(&answer("a.b.", &[60, 0]))), None);
    assert_eq!(lifetime(&bytes(&answer("a.b.", &[u32::MAX]))), None);
}

#[test]
fn absence_is_kept_as_long_as_its_zone_says() {
    assert_eq!(lifetime(&bytes(&absence(60, 5))), Some(5));
    assert_eq!(lifetime(&bytes(&absence(5, 60))), Some(5));
    assert_eq!(lifetime(&bytes(&absence(9000, 9000))), Some(LONGEST_ABSENCE));
    assert_eq!(lifetime(&bytes(&answer("a.b.", &[]))), None, "nobody says how long");
    let mut gone = absence(60, 30);
    gone.metadata.response_code = ResponseCode::NXDomain;
    assert_eq!(lifetime(&bytes(&gone)), Some(30));
    let mut alias = absence(60, 30);
    let to = RData::CNAME(CNAME(name("c.b.")));
    alias.add_answer(Record::from_rdata(name("a.b."), 10, to));
    assert_eq!(lifetime(&bytes(&alias)), Some(10), "an alias of a name without addresses");
}

#[test]
fn failures_and_parts_are_not_kept() {
    let mut failure = answer("a.b.", &[60]);
    failure.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(lifetime(&bytes(&failure)), None);
    let mut part = answer("a.b.", &[60]);
    part.metadata.truncation = true;
    assert_eq!(lifetime(&bytes(&part)), None);
    assert_eq!(lifetime(b"noise"), None);
}

#[test]
fn answers_age_and_then_wait_for_upstream_to_fail() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let (asked, kept) = (question("a.b."), bytes(&answer("a.b.", &[20])));
    cache.put(&asked, &kept, start);
    let freshness = |cache: &Cache, seconds| cache.get(&asked, at(seconds)).map(|k| k.freshness);
    assert_eq!(freshness(&cache, 0), Some(Freshness::Fresh(0)));
    assert_eq!(freshness(&cache, 19), Some(Freshness::Fresh(19)));
    assert_eq!(freshness(&cache, 20), Some(Freshness::Stale));
    cache.failed(&asked, at(21));
    assert_eq!(freshness(&cache, 22), Some(Freshness::Away), "upstream is left alone");
    assert_eq!(freshness(&cache, 21 + RECHECK.as_secs()), Some(Freshness::Stale));
    assert_eq!(freshness(&cache, 20 + STALE.as_secs()), None);
    cache.put(&asked, &kept, at(30));
    assert_eq!(freshness(&cache, 31), Some(Freshness::Fresh(1)));
    assert!(cache.get(&question("A.B."), at(31)).is_some(), "in any spelling");
    assert!(cache.get(&question("b.b."), at(31)).is_none());
}

#[test]
fn room_is_made_from_what_ends_first() {
    let (mut cache, now) = (Cache::default(), Instant::now());
    let host = |n: usize| format!("host-{n}.example.com.");
    let fits = MOST_BYTES / cost(&bytes(&answer(&host(1000), &[60])));
    for n in 0..fits + 10 {
        let ttl = if n == 5 { 10 } else { 60 };
        cache.put(&question(&host(1000 + n)), &bytes(&answer(&host(1000 + n), &[ttl])), now);
    }
    assert!(cache.get(&question(&host(1005)), now).is_none(), "it would have ended first");
    assert!(cache.get(&question(&host(1000 + fits + 9)), now).is_some());
    let later = now + STALE + Duration::from_mins(2);
    cache.put(&question("new.b."), &bytes(&answer("new.b.", &[60])), later);
    while cache.entries.len() > 1 {
        cache.make_room(later);
    }
    assert!(cache.get(&question("new.b."), later).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn it_never_takes_more_than_it_may(
        puts in proptest::collection::vec((0..600_usize, 0..400_usize, 1..100_u32), 1..700),
    ) {
        let (mut cache, start) = (Cache::default(), Instant::now());
        for (step, (host, records, ttl)) in puts.into_iter().enumerate() {
            let host = format!("h{host}.example.com.");
            let ttls = vec![ttl; records % 60 + 1];
            let now = start + Duration::from_secs(step as u64 * 30);
            cache.put(&question(&host), &bytes(&answer(&host, &ttls)), now);
            let sum: usize = cache.entries.values().map(|entry| cost(&entry.answer)).sum();
            prop_assert_eq!(cache.bytes, sum);
            prop_assert!(sum <= MOST_BYTES);
        }
    }
}
