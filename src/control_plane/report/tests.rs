use std::sync::Arc;

use time::OffsetDateTime;

use super::*;
use crate::{
    control_plane::member::{Facts, Validity, Waiting},
    mesh::{Interception, ProxyNode, ProxyRole},
    xds::{Rejection, ResourceType},
};

fn member(pod: &str, opened: Instant) -> Member {
    let until = OffsetDateTime::from_unix_timestamp(1_000_000).unwrap();
    let certificate = Validity { from: OffsetDateTime::UNIX_EPOCH, until };
    Member {
        node: ProxyNode {
            role: ProxyRole::Sidecar,
            key: Key::new("shop", pod),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            service_account: "cart".into(),
            workload: "cart".into(),
            interception: Interception::Redirect,
        },
        rejections: Vec::new(),
        facts: Facts { certificate: Some(certificate), ..Facts::default() },
        waiting: Arc::new(Waiting::new(opened)),
    }
}

fn rejection(message: &str) -> Rejection {
    Rejection {
        kind: ResourceType::Cluster,
        name: "outbound|80||cart".into(),
        version: None,
        certain: true,
        message: message.into(),
    }
}

fn told(reports: &[Report]) -> Vec<(&str, State)> {
    let mut told: Vec<_> = reports.iter().map(|report| (&*report.pod, report.state)).collect();
    told.sort_by_key(|(pod, _)| *pod);
    told
}

#[test]
fn tells_of_all_and_then_of_changes() {
    let start = Instant::now();
    let later = |seconds| start + Duration::from_secs(seconds);
    let mut members: BTreeMap<u64, Member> =
        [(1, member("a", start)), (2, member("b", start))].into();
    let mut reporter = Reporter::default();
    let first = reporter.changes(&members, start, 10);
    assert_eq!(told(&first), [("a", State::Current), ("b", State::Current)]);
    assert_eq!(first[0].certificate_ends, Some(Timestamp::from_second(1_000_000).unwrap()));
    assert_eq!(reporter.changes(&members, later(1), 10), []);

    // An answer that takes a moment is no news, one that does not come is.
    members[&1].waiting.begin(later(2));
    assert_eq!(reporter.changes(&members, later(3), 10), []);
    assert_eq!(told(&reporter.changes(&members, later(6), 10)), [("a", State::Pending)]);
    members[&1].waiting.end();
    assert_eq!(told(&reporter.changes(&members, later(7), 10)), [("a", State::Current)]);

    members.get_mut(&2).unwrap().rejections = vec![rejection("no"), rejection("never")];
    let refused = reporter.changes(&members, later(8), 10);
    assert_eq!(told(&refused), [("b", State::Rejected)]);
    assert_eq!(refused[0].message, "Cluster outbound|80||cart: no");
    members.get_mut(&2).unwrap().rejections.remove(0);
    assert_eq!(
        reporter.changes(&members, later(9), 10)[0].message,
        "Cluster outbound|80||cart: never"
    );

    members.remove(&1);
    assert_eq!(told(&reporter.changes(&members, later(9), 10)), [("a", State::Disconnected)]);
    assert_eq!(reporter.changes(&members, later(9), 10), []);
}

#[test]
fn the_newest_stream_of_a_pod_counts() {
    let start = Instant::now();
    let mut old = member("a", start);
    old.rejections.push(rejection("no"));
    let mut members: BTreeMap<u64, Member> = [(1, old), (2, member("a", start))].into();
    let mut reporter = Reporter::default();
    assert_eq!(told(&reporter.changes(&members, start, 10)), [("a", State::Current)]);
    members.remove(&1);
    assert_eq!(reporter.changes(&members, start, 10), []);
}

#[test]
fn many_are_told_of_in_pieces() {
    let start = Instant::now();
    let members: BTreeMap<u64, Member> =
        (0..25).map(|id| (id, member(&format!("pod-{id:02}"), start))).collect();
    let mut reporter = Reporter::default();
    let pieces: Vec<_> = (0..4).map(|_| reporter.changes(&members, start, 10).len()).collect();
    assert_eq!(pieces, [10, 10, 5, 0]);
    let pieces: Vec<_> =
        (0..4).map(|_| reporter.changes(&BTreeMap::new(), start, 10).len()).collect();
    assert_eq!(pieces, [10, 10, 5, 0]);
}

#[test]
fn a_message_has_an_end() {
    let mut long = member("a", Instant::now());
    long.rejections.push(rejection(&"é".repeat(10_000)));
    assert_eq!(report(&long, Instant::now()).message.chars().count(), LONGEST_MESSAGE);
}
