use bytes::Bytes;

use super::*;
use crate::xds::ResourceSet;

fn resource(name: &str, version: u64, warmed_by: Option<&str>) -> Arc<Resource> {
    let warmed_by = warmed_by.map(Into::into);
    Arc::new(Resource { name: name.into(), version, body: Bytes::new(), warmed_by })
}

fn set(resources: &[(&str, u64)]) -> Arc<ResourceSet> {
    Arc::new(resources.iter().map(|(name, version)| resource(name, *version, None)).collect())
}

fn view(kind: ResourceType, resources: &[(&str, u64)]) -> View {
    View::default().with(kind, &set(resources))
}

fn session(view: View) -> Session {
    let mut session = Session::new(Variant::Delta, Arc::default());
    assert!(session.on_view(view).responses.is_empty());
    session
}

fn ask(kind: ResourceType, names: &[&str]) -> Request {
    let subscribe = names.iter().map(ToString::to_string).collect();
    Request { kind: Some(kind), subscribe, ..Request::default() }
}

fn answer(response: &Response, error: Option<&str>) -> Request {
    Request {
        kind: Some(response.kind),
        nonce: Some(response.nonce),
        error: error.map(str::to_owned),
        ..Request::default()
    }
}

/// `type: +added, -removed`, one line for each response.
fn show(responses: &[Response]) -> Vec<String> {
    let one = |response: &Response| {
        let added = response.resources.iter().map(|r| format!("+{}", r.name));
        let removed = response.removed.iter().map(|name| format!("-{name}"));
        let names: Vec<_> = added.chain(removed).collect();
        format!("{:?}: {}", response.kind, names.join(" "))
    };
    responses.iter().map(one).collect()
}

#[test]
fn what_did_not_change_is_not_sent() {
    let mut session = session(view(ResourceType::Cluster, &[("a", 1), ("b", 1)]));
    let first = session.on_request(ask(ResourceType::Cluster, &[])).responses;
    assert_eq!(show(&first), ["Cluster: +a +b"]);
    assert!(session.on_request(answer(&first[0], None)).responses.is_empty());
    let second = session.on_view(view(ResourceType::Cluster, &[("a", 1), ("b", 2), ("c", 1)]));
    assert_eq!(show(&second.responses), ["Cluster: +b +c"]);
    // The same content in other sets is no change.
    let third = session.on_view(view(ResourceType::Cluster, &[("a", 1), ("b", 2), ("c", 1)]));
    assert!(third.responses.is_empty());
}

#[test]
fn an_empty_wildcard_is_answered_once() {
    let mut session = session(View::default());
    let first = session.on_request(ask(ResourceType::Listener, &[])).responses;
    assert_eq!(show(&first), ["Listener: "]);
    assert!(session.on_request(answer(&first[0], None)).responses.is_empty());
}

#[test]
fn a_reconnecting_client_gets_only_what_it_lacks() {
    let mut session =
        session(view(ResourceType::Cluster, &[("changed", 2), ("new", 1), ("same", 0xab)]));
    let versions = [("changed", "1"), ("gone", "1"), ("same", "ab"), ("foreign", "v1.2/3")];
    let initial_versions = versions.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
    let request = Request { initial_versions, ..ask(ResourceType::Cluster, &[]) };
    let responses = session.on_request(request).responses;
    assert_eq!(show(&responses), ["Cluster: +changed +new", "Cluster: -foreign -gone"],);
}

#[test]
fn a_reconnecting_client_that_has_all_gets_nothing() {
    let mut session = session(view(ResourceType::Endpoints, &[("a", 0x1f)]));
    let initial_versions = vec![("a".to_owned(), "1f".to_owned())];
    let request = Request { initial_versions, ..ask(ResourceType::Endpoints, &["a"]) };
    assert!(session.on_request(request).responses.is_empty());
    let update = session.on_view(view(ResourceType::Endpoints, &[("a", 2)]));
    assert_eq!(show(&update.responses), ["Endpoints: +a"]);
}

#[test]
fn names_that_do_not_exist_are_answered() {
    let mut session = session(view(ResourceType::Endpoints, &[("a", 1)]));
    let responses = session.on_request(ask(ResourceType::Endpoints, &["a", "b"])).responses;
    assert_eq!(show(&responses), ["Endpoints: +a", "Endpoints: -b"]);
    let later = session.on_view(view(ResourceType::Endpoints, &[("a", 1), ("b", 1), ("c", 1)]));
    assert_eq!(show(&later.responses), ["Endpoints: +b"]);
}

#[test]
fn dropped_names_are_no_longer_sent() {
    let mut session = session(view(ResourceType::Route, &[("a", 1), ("b", 1)]));
    session.on_request(ask(ResourceType::Route, &["a", "b"]));
    let unsubscribe = vec!["a".to_owned()];
    let request = Request { unsubscribe, ..ask(ResourceType::Route, &[]) };
    assert!(session.on_request(request).responses.is_empty());
    let update = session.on_view(view(ResourceType::Route, &[("a", 2), ("b", 2)]));
    assert_eq!(show(&update.responses), ["Route: +b"]);
    // Who subscribes again is answered even though nothing changed.
    let again = session.on_request(ask(ResourceType::Route, &["b", "a"]));
    assert_eq!(show(&again.responses), ["Route: +a +b"]);
}

fn connected(clusters: &[(&str, u64)], endpoints: &[(&str, u64)], routes: &[(&str, u64)]) -> View {
    let waiting = clusters.iter().map(|(name, version)| resource(name, *version, Some(name)));
    View::default()
        .with(ResourceType::Cluster, &Arc::new(waiting.collect()))
        .with(ResourceType::Endpoints, &set(endpoints))
        .with(ResourceType::Route, &set(routes))
}

#[test]
fn makes_before_it_breaks() {
    let mut session = session(connected(&[("old", 1)], &[("old", 1)], &[("r", 1)]));
    session.on_request(ask(ResourceType::Cluster, &[]));
    session.on_request(ask(ResourceType::Endpoints, &["old", "new"]));
    session.on_request(ask(ResourceType::Route, &["r"]));
    let moved = session.on_view(connected(&[("new", 1)], &[("new", 1)], &[("r", 2)]));
    assert_eq!(
        show(&moved.responses),
        ["Cluster: +new", "Endpoints: +new", "Route: +r", "Endpoints: -old", "Cluster: -old"]
    );
}

#[test]
fn an_updated_cluster_brings_its_endpoints_along() {
    let mut session = session(connected(&[("c", 1)], &[("c", 1)], &[]));
    session.on_request(ask(ResourceType::Cluster, &[]));
    session.on_request(ask(ResourceType::Endpoints, &["c"]));
    let updated = session.on_view(connected(&[("c", 2)], &[("c", 1)], &[]));
    assert_eq!(show(&updated.responses), ["Cluster: +c", "Endpoints: +c"]);
}

#[test]
fn a_refused_resource_is_reported_and_not_sent_again() {
    let mut session = session(view(ResourceType::Cluster, &[("bad", 1), ("good", 1)]));
    let sent = session.on_request(ask(ResourceType::Cluster, &[])).responses;
    let refused =
        session.on_request(answer(&sent[0], Some("Error adding/updating cluster(s) bad: no")));
    assert!(refused.responses.is_empty() && refused.rejections_changed);
    let rejections: Vec<_> = session.rejections().cloned().collect();
    assert_eq!(rejections.len(), 1);
    assert_eq!((&*rejections[0].name, rejections[0].version), ("bad", Some(1)));
    assert!(rejections[0].certain);

    let other = session.on_view(view(ResourceType::Cluster, &[("bad", 1), ("good", 2)]));
    assert_eq!(show(&other.responses), ["Cluster: +good"]);
    session.on_request(answer(&other.responses[0], None));
    assert_eq!(
        session.rejections().count(),
        1,
        "another resource's acknowledgement clears nothing"
    );

    let mended = session.on_view(view(ResourceType::Cluster, &[("bad", 2), ("good", 2)]));
    assert_eq!(show(&mended.responses), ["Cluster: +bad"]);
    assert!(session.on_request(answer(&mended.responses[0], None)).rejections_changed);
    assert_eq!(session.rejections().count(), 0);
}

#[test]
fn a_refused_group_is_sent_in_halves_until_the_bad_one_is_alone() {
    let mut session = session(view(ResourceType::Route, &[("a", 1), ("b", 1), ("c", 1)]));
    let mut queue: VecDeque<_> =
        session.on_request(ask(ResourceType::Route, &["a", "b", "c"])).responses.into();
    let mut accepted = BTreeSet::new();
    while let Some(response) = queue.pop_front() {
        let bad = response.resources.iter().any(|r| &*r.name == "b");
        if !bad {
            accepted.extend(response.resources.iter().map(|r| r.name.to_string()));
        }
        let request = answer(&response, bad.then_some("unknown field"));
        queue.extend(session.on_request(request).responses);
    }
    assert_eq!(accepted.into_iter().collect::<Vec<_>>(), ["a", "c"]);
    let names: Vec<_> = session.rejections().map(|r| r.name.to_string()).collect();
    assert_eq!(names, ["b"]);
}

#[test]
fn what_a_refused_route_may_still_use_stays() {
    let mut session = session(connected(&[("old", 1)], &[], &[("r", 1)]));
    session.on_request(ask(ResourceType::Cluster, &[]));
    session.on_request(ask(ResourceType::Route, &["r"]));
    let update = session.on_view(connected(&[("old", 1)], &[], &[("r", 2)])).responses;
    session.on_request(answer(&update[0], Some("bad regex")));
    assert!(session.on_view(connected(&[], &[], &[("r", 2)])).responses.is_empty());
    let mended = session.on_view(connected(&[], &[], &[("r", 3)])).responses;
    assert_eq!(show(&mended), ["Route: +r"]);
    let after = session.on_request(answer(&mended[0], None)).responses;
    assert_eq!(show(&after), ["Cluster: -old"]);
}

#[test]
fn state_of_the_world_sends_whole_lists_of_clusters_and_changed_endpoints() {
    let mut session = Session::new(Variant::StateOfTheWorld, Arc::default());
    session.on_view(connected(&[("a", 1), ("b", 1)], &[("a", 1), ("b", 1)], &[]));
    let first = session.on_request(ask(ResourceType::Cluster, &[])).responses;
    assert_eq!(show(&first), ["Cluster: +a +b"]);
    session.on_request(ask(ResourceType::Endpoints, &["a", "b"]));
    let update = session.on_view(connected(&[("a", 1), ("c", 1)], &[("a", 2), ("b", 1)], &[]));
    assert_eq!(show(&update.responses), ["Cluster: +a +c +b", "Endpoints: +a", "Cluster: +a +c"]);
}
