use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::{
    control_plane::report::{Line, Report},
    operator::fleet::{pod::InjectedPod, reports::Source},
    watch::Key,
};

const IMAGE: &str = "registry.test/meshwright-proxy:1.4.0";

fn wanted() -> Wanted {
    Wanted {
        image: IMAGE.to_owned(),
        version: "1.4.0".to_owned(),
        certificate_seconds: 86_400,
        ..Wanted::default()
    }
}

fn pod(name: &str, image: &str, ready: bool) -> InjectedPod {
    let value: Value = json!({
        "metadata": {
            "uid": name, "name": name, "namespace": "shop",
            "labels": {"meshwright.dev/revision": "default"},
        },
        "spec": {"initContainers": [{"name": "meshwright-proxy", "image": image}]},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    serde_json::from_value(value).unwrap()
}

/// Pods, and what the one control plane says of some.
fn known(pods: Vec<InjectedPod>, reports: Vec<Report>) -> Known {
    let mut known = Known::default();
    known.table.see(Event::Init);
    for pod in pods {
        known.table.see(Event::InitApply(pod));
    }
    known.table.see(Event::InitDone);
    let source: Source = "control-plane-1".into();
    known.reports.set_sources([(&source, "default")].into_iter());
    let hello = Line::Hello { version: "1.4.2".to_owned() };
    let lines = reports.into_iter().map(Line::Proxy);
    for line in [hello].into_iter().chain(lines).chain([Line::Synced]) {
        known.reports.hear(&source, line);
    }
    known
}

fn report(pod: &str, state: State) -> Report {
    Report::new(&Key::new("shop", pod), state)
}

fn ready(summary: &Summary) -> (Option<bool>, &'static str, String) {
    let [ready, _] = summary.findings();
    (ready.status, ready.reason, ready.message)
}

fn supported(summary: &Summary) -> (Option<bool>, &'static str, String) {
    let [_, supported] = summary.findings();
    (supported.status, supported.reason, supported.message)
}

#[test]
fn counts_what_runs() {
    let pods = vec![
        pod("a", IMAGE, true),
        pod("b", "registry.test/meshwright-proxy:1.3.0", true),
        pod("c", IMAGE, false),
    ];
    let reports = vec![
        report("a", State::Current),
        Report { message: "Cluster x: no".to_owned(), ..report("b", State::Rejected) },
        report("c", State::Pending),
    ];
    let summary = summarize(&known(pods, reports), "default", wanted());
    let ProxyCount { total, ready: are_ready, current, outdated, rejected, summary: shown } =
        summary.count.clone();
    assert_eq!((total, are_ready, current, outdated, rejected), (3, 2, 2, 1, 1));
    assert_eq!(shown, "2/3");
    let (status, reason, message) = ready(&summary);
    assert_eq!((status, reason), (Some(false), "Rejected"));
    assert!(message.contains("shop/b: Cluster x: no"), "{message}");
    let other = summarize(&known(vec![pod("a", IMAGE, true)], Vec::new()), "other", wanted());
    assert_eq!(other.count, ProxyCount::default());
    assert_eq!(ready(&other).1, "NoProxies");
}

#[test]
fn says_that_all_is_well_and_what_is_outdated() {
    let pods = vec![pod("a", IMAGE, true), pod("b", "registry.test/meshwright-proxy:1.3.0", true)];
    let reports = vec![report("a", State::Current), report("b", State::Current)];
    let summary = summarize(&known(pods, reports), "default", wanted());
    let (status, reason, message) = ready(&summary);
    assert_eq!((status, reason), (Some(true), "Ready"));
    assert!(message.contains("1 of 2 run another image"), "{message}");
    assert_eq!(supported(&summary).1, "Supported");
}

#[test]
fn a_proxy_without_a_control_plane_is_named_where_all_were_asked() {
    let pods = || vec![pod("a", IMAGE, true), pod("starting", IMAGE, false)];
    let summary =
        summarize(&known(pods(), vec![report("starting", State::Current)]), "default", wanted());
    assert_eq!(summary.states.disconnected, 1);
    let mut known = known(pods(), vec![]);
    // The one that is not ready is said to be that.
    assert_eq!(ready(&summarize(&known, "default", wanted())).1, "NotReady");
    known.table.see(Event::Delete(pod("starting", IMAGE, false)));
    let (status, reason, message) = ready(&summarize(&known, "default", wanted()));
    assert_eq!((status, reason), (Some(false), "Disconnected"));
    assert!(message.contains("1 of 1 proxies") && message.contains("shop/a"), "{message}");
}

#[test]
fn what_cannot_be_asked_is_not_known() {
    let mut known = known(vec![pod("a", IMAGE, true)], vec![report("a", State::Current)]);
    let before = summarize(&known, "default", wanted());
    assert_eq!((before.states.current, ready(&before).0), (1, Some(true)));
    known.reports.lose(&"control-plane-1".into(), "connection refused".to_owned());
    let summary = summarize(&known, "default", wanted());
    assert_eq!((summary.states.current, summary.states.unknown), (0, 1));
    let (status, reason, message) = ready(&summary);
    assert_eq!((status, reason), (None, "NotKnown"));
    assert!(message.contains("connection refused"), "{message}");
    assert_eq!(summary.count.total, 1);
    known.mute = Some("no token");
    assert!(ready(&summarize(&known, "default", wanted())).2.ends_with("no token"));
}

#[test]
fn names_versions_that_do_not_go_together() {
    let image = |version: &str| format!("registry.test/meshwright-proxy:{version}");
    let pods = vec![
        pod("old", &image("1.1.9"), true),
        pod("good", &image("1.2.0"), true),
        pod("new", &image("1.5.0"), true),
        pod("digest", "registry.test/meshwright-proxy@sha256:ab", true),
    ];
    // Without a number in its image, what the agent itself says counts.
    let agent = Report { agent: "1.0.3".to_owned(), ..report("digest", State::Current) };
    let summary = summarize(&known(pods, vec![agent]), "default", wanted());
    let (status, reason, message) = supported(&summary);
    assert_eq!((status, reason), (Some(false), "TooOld"));
    assert!(message.contains("2 proxies are more than 2 minor versions behind"), "{message}");
    assert!(message.contains("shop/digest: 1.0, shop/old: 1.1;"), "{message}");
    assert!(
        message.contains("1 proxies are ahead") && message.contains("shop/new: 1.5"),
        "{message}"
    );
    assert!(message.contains("kubectl rollout restart"), "{message}");
}

#[test]
fn tags_without_numbers_are_not_compared() {
    let wanted = Wanted { version: "latest".to_owned(), ..wanted() };
    let summary = summarize(&Known::default(), "default", wanted);
    assert_eq!(supported(&summary).1, "NotCompared");
}

#[test]
fn the_first_certificate_to_end_is_told_to_the_hour() {
    let ends = |pod, time: &str| Report {
        certificate_ends: Some(time.parse().unwrap()),
        ..report(pod, State::Current)
    };
    let pods = || vec![pod("a", IMAGE, true), pod("b", IMAGE, true), pod("c", IMAGE, true)];
    let reports = vec![ends("a", "2026-11-22T08:44:10Z"), ends("b", "2026-11-22T07:59:59Z")];
    let summary = summarize(&known(pods(), reports), "default", wanted());
    let certificate = summary.certificate().unwrap();
    assert_eq!((&*certificate.name, &*certificate.not_after), ("proxies", "2026-11-22T07:00:00Z"));
    let renewed = vec![ends("a", "2026-11-22T08:44:10Z"), ends("b", "2026-11-22T07:01:00Z")];
    let renewed = summarize(&known(pods(), renewed), "default", wanted());
    assert_eq!(renewed.certificate_ends, summary.certificate_ends);
    assert_eq!(summarize(&known(pods(), vec![]), "default", wanted()).certificate(), None);
}

#[test]
fn a_message_names_the_first_few() {
    let mut sample = Sample::default();
    for name in ["e", "b", "d", "a", "c"] {
        sample.add(name, "");
    }
    assert_eq!(sample.show(), "a, b, c and 2 more");
}
