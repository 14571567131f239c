//! hickory's own `Message` reads what we write, and writes what we read.

use hickory_proto::{
    op::{self, Edns},
    rr::{
        RData,
        rdata::{A, CNAME, TXT},
    },
};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn question(text: &str, kind: RecordType) -> op::Message {
    let mut message = op::Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

fn with_edns(mut message: op::Message, payload: u16, version: u8) -> op::Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload).set_version(version).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

fn asked(message: &op::Message) -> Request {
    match receive(&message.to_vec().unwrap()) {
        Received::Asked(request) => *request,
        other => panic!("{other:?}"),
    }
}

fn refused(message: &op::Message) -> op::Message {
    match receive(&message.to_vec().unwrap()) {
        Received::Refused(reply) => op::Message::from_vec(&reply).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn addresses(owner: &str, count: u8) -> Vec<Record> {
    let record =
        |n| Record { owner: name(owner), ttl: 30, data: Data::Address([10, 0, 0, n].into()) };
    (0..count).map(record).collect()
}

fn composed(request: &Request, records: &[Record], transport: Transport) -> op::Message {
    let reply = compose(request, ResponseCode::NoError, true, records);
    let bytes = reply.fit(request, request.limit(transport));
    assert!(bytes.len() <= request.limit(transport));
    op::Message::from_vec(&bytes).unwrap()
}

#[test]
fn a_reply_repeats_the_id_and_the_question_as_it_was_spelt() {
    let request = asked(&question("CaRt.sHoP.", RecordType::A));
    let reply = composed(&request, &addresses("cart.shop.", 2), Transport::Udp);
    assert_eq!((reply.id, reply.message_type), (7, MessageType::Response));
    assert!(reply.recursion_desired && reply.recursion_available && !reply.truncation);
    assert_eq!(reply.queries[0].name().to_ascii(), "CaRt.sHoP.");
    assert_eq!(reply.answers.len(), 2);
    assert_eq!(reply.answers[1].data, RData::A(A::new(10, 0, 0, 1)));
    assert!(reply.edns.is_none(), "the client did not speak EDNS");
}

#[test]
fn aliases_and_addresses_of_both_families_are_written() {
    let request = asked(&question("a.b.", RecordType::AAAA));
    let alias = Record { owner: name("a.b."), ttl: 5, data: Data::Alias(name("c.b.")) };
    let address =
        Record { owner: name("c.b."), ttl: 30, data: Data::Address("fd00::1".parse().unwrap()) };
    let reply = composed(&request, &[alias.clone(), address.clone()], Transport::Udp);
    assert_eq!(reply.answers[0].data, RData::CNAME(CNAME(name("c.b."))));
    assert_eq!((reply.answers[0].ttl, reply.answers[1].name.clone()), (5, name("c.b.")));
    let bytes = reply.to_vec().unwrap();
    assert_eq!(records(&bytes), [alias, address], "and read again");
}

#[test]
fn what_udp_does_not_hold_is_cut_and_says_so() {
    let many = addresses("cart.shop.", 200);
    let plain = asked(&question("cart.shop.", RecordType::A));
    let reply = composed(&plain, &many, Transport::Udp);
    assert!(reply.truncation && reply.answers.len() > 20, "{}", reply.answers.len());
    assert_eq!(composed(&plain, &many, Transport::Tcp).answers.len(), 200);

    let edns = asked(&with_edns(question("cart.shop.", RecordType::A), 1232, 0));
    let reply = composed(&edns, &many, Transport::Udp);
    assert!(reply.truncation && reply.answers.len() > 60);
    let edns = reply.edns.expect("EDNS is answered with EDNS, also in a cut reply");
    assert!(edns.flags().dnssec_ok);

    let greedy = asked(&with_edns(question("cart.shop.", RecordType::A), 65535, 0));
    assert_eq!(greedy.limit(Transport::Udp), UDP_MOST);
    let modest = asked(&with_edns(question("cart.shop.", RecordType::A), 5, 0));
    assert_eq!(modest.limit(Transport::Udp), UDP_LENGTH);
}

#[test]
fn what_is_no_question_is_ignored_or_refused() {
    let mut response = question("a.b.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert!(matches!(receive(&response.to_vec().unwrap()), Received::Ignored));
    assert!(matches!(receive(b"hello"), Received::Ignored));
    let whole = question("a.b.", RecordType::A).to_vec().unwrap();
    assert!(matches!(receive(&whole[..whole.len() - 1]), Received::Ignored));

    let mut two = question("a.b.", RecordType::A);
    two.add_query(Query::query(name("c.d."), RecordType::A));
    assert_eq!(refused(&two).response_code, ResponseCode::Refused);
    two.queries.clear();
    assert_eq!(refused(&two).response_code, ResponseCode::Refused);
    let mut update = question("a.b.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(refused(&update).response_code, ResponseCode::NotImp);
    let future = with_edns(question("a.b.", RecordType::A), 1232, 1);
    // The number has two names, and hickory reads the other one.
    assert_eq!(u16::from(refused(&future).response_code), u16::from(ResponseCode::BADVERS));
}

#[test]
fn upstream_hears_the_question_and_nothing_about_the_client() {
    for (message, edns) in [
        (question("a.b.", RecordType::TXT), false),
        (with_edns(question("a.b.", RecordType::TXT), 4096, 0), true),
    ] {
        let sent = op::Message::from_vec(&asked(&message).question.encode(99)).unwrap();
        assert_eq!((sent.id, sent.message_type), (99, MessageType::Query));
        assert!(sent.recursion_desired);
        assert_eq!(sent.queries, message.queries);
        assert_eq!(sent.edns.as_ref().map(Edns::max_payload), edns.then_some(PAYLOAD));
    }
}

#[test]
fn only_an_answer_to_the_question_is_taken() {
    let request = asked(&question("a.b.", RecordType::A));
    let mut answer = question("A.B.", RecordType::A);
    let adopt = |message: &op::Message| Reply::adopt(message.to_vec().unwrap(), &request.question);
    assert!(adopt(&answer).is_none(), "a question is no answer");
    answer.metadata.message_type = MessageType::Response;
    assert!(adopt(&answer).is_some(), "another spelling is the same name");
    assert!(Reply::adopt(vec![1, 2, 3], &request.question).is_none());
    answer.queries[0].set_query_type(RecordType::AAAA);
    assert!(adopt(&answer).is_none());
}

#[test]
fn upstreams_edns_stays_behind_and_its_records_pass_untouched() {
    let request = asked(&question("a.b.", RecordType::TXT));
    let mut answer = with_edns(question("a.b.", RecordType::TXT), 4096, 0);
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.response_code = ResponseCode::NXDomain;
    let text = RData::TXT(TXT::new(vec!["x".repeat(200)]));
    answer.add_answer(hickory_proto::rr::Record::from_rdata(name("a.b."), 77, text));
    let mut reply = Reply::adopt(answer.to_vec().unwrap(), &request.question).unwrap();
    assert_eq!(reply.code(), ResponseCode::NXDomain);
    reply.exists();
    reply.map_ttl(|ttl| ttl - 7);
    let bytes = reply.fit(&request, UDP_LENGTH);
    let got = op::Message::from_vec(&bytes).unwrap();
    assert_eq!((got.response_code, got.answers[0].ttl), (ResponseCode::NoError, 70));
    assert_eq!(got.answers[0].data, answer.answers[0].data);
    assert!(got.edns.is_none());
}

fn host() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9_][a-zA-Z0-9_-]{0,12}\\.){1,5}"
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(receive(&bytes));
        drop(records(&bytes));
        let request = asked(&question("a.b.", RecordType::A));
        drop(Reply::adopt(bytes, &request.question));
    }

    /// Nearly good packets go deeper than noise.
    #[test]
    fn damage_never_panics(
        at in proptest::collection::vec((0..200_usize, any::<u8>()), 0..6),
        cut in 0..200_usize,
    ) {
        let request = asked(&question("a.b.", RecordType::A));
        let mut bytes = compose(&request, ResponseCode::NoError, true, &addresses("a.b.", 8))
            .fit(&request, 512);
        for (at, value) in at {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.max(1));
        drop(records(&bytes));
        if let Some(mut reply) = Reply::adopt(bytes.clone(), &request.question) {
            reply.exists();
            reply.map_ttl(|ttl| ttl / 2);
            prop_assert!(Message::read(&reply.fit(&request, 512)).is_some());
        }
        // As a question, not a response.
        if let Some(flags) = bytes.get_mut(2) {
            *flags = 0;
        }
        drop(receive(&bytes));
    }

    #[test]
    fn replies_are_well_formed_whatever_their_size(
        host in host(),
        count in 0..250_u8,
        payload in any::<u16>(),
        edns: bool,
        tcp: bool,
    ) {
        let mut message = question(&host, RecordType::A);
        if edns {
            message = with_edns(message, payload, 0);
        }
        let request = asked(&message);
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let reply = composed(&request, &addresses(&host, count), transport);
        prop_assert_eq!(&reply.queries, &message.queries);
        prop_assert!(reply.queries[0].name().eq_case(message.queries[0].name()));
        prop_assert_eq!(reply.edns.is_some(), edns);
        prop_assert_eq!(reply.truncation, reply.answers.len() < usize::from(count));
    }
}
