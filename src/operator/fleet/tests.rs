use serde_json::json;

use super::*;

fn pod(name: &str, image: &str) -> InjectedPod {
    serde_json::from_value(json!({
        "metadata": {
            "uid": name, "name": name, "namespace": "shop", "labels": {REVISION: "default"},
        },
        "spec": {"initContainers": [{"name": "meshwright-proxy", "image": image}]},
    }))
    .unwrap()
}

fn wanted(image: &str) -> Wanted {
    Wanted { image: image.to_owned(), ..Wanted::default() }
}

/// Without a token, so that pods are all there is to know.
fn fleet(pods: &[InjectedPod]) -> Fleet {
    let fleet = Fleet::default();
    fleet.change(|known| known.mute = Some("no token"));
    fleet.see(watcher::Event::Init);
    for pod in pods {
        fleet.see(watcher::Event::InitApply(pod.clone()));
    }
    fleet.see(watcher::Event::InitDone);
    fleet
}

#[test]
fn nothing_is_said_before_all_is_known() {
    let fleet = Fleet::default();
    assert!(!fleet.publish(vec![("default".to_owned(), wanted("proxy:1"))]));
    assert_eq!(fleet.summary("default", wanted("proxy:1")), None);
    let fleet = self::fleet(&[pod("a", "proxy:1")]);
    assert!(fleet.is_complete());
    fleet.change(|known| known.mute = None);
    assert!(!fleet.is_complete(), "control planes have not been asked");
}

#[test]
fn the_status_says_what_was_published_until_the_installation_changes() {
    let fleet = fleet(&[pod("a", "proxy:1")]);
    let installation = || vec![("default".to_owned(), wanted("proxy:1"))];
    assert!(fleet.publish(installation()));
    assert!(!fleet.publish(installation()), "nothing has changed");
    let summary = |image| fleet.summary("default", wanted(image)).unwrap().count.clone();
    assert_eq!((summary("proxy:1").total, summary("proxy:1").outdated), (1, 0));
    fleet.see(watcher::Event::Apply(pod("b", "proxy:1")));
    assert_eq!(summary("proxy:1").total, 1, "not before it is published");
    assert_eq!((summary("proxy:2").total, summary("proxy:2").outdated), (2, 2));
    assert!(fleet.publish(installation()));
    assert_eq!(summary("proxy:1").total, 2);
}

#[test]
fn lists_the_outdated_in_order() {
    let fleet = fleet(&[pod("b", "proxy:1"), pod("a", "proxy:1"), pod("c", "proxy:2")]);
    let names = |proxies: Vec<Arc<Proxy>>| -> Vec<String> {
        proxies.iter().map(|proxy| proxy.pod.clone()).collect()
    };
    assert_eq!(names(fleet.proxies("default")), ["a", "b", "c"]);
    assert_eq!(names(fleet.outdated("default", &wanted("proxy:2"))), ["a", "b"]);
    assert!(fleet.proxies("other").is_empty());
    let configuration = &fleet.proxies("default")[0].configuration;
    assert_eq!(*configuration, proxy::Configuration::Unknown);
}

#[test]
fn names_a_pod_that_somebody_broke_once() {
    let mut broken = pod("a", "proxy:1");
    broken.metadata.annotations =
        Some([("meshwright.dev/status".to_owned(), "{}".to_owned())].into());
    let fleet = fleet(&[]);
    let (_, damage) = fleet.see(watcher::Event::Apply(broken.clone())).unwrap();
    assert!(damage.contains("restartPolicy: Always"), "{damage}");
    assert!(fleet.see(watcher::Event::Apply(broken)).is_none());
    assert!(fleet.see(watcher::Event::Apply(pod("b", "proxy:1"))).is_none());
}

#[test]
fn who_does_not_lead_any_more_knows_nothing() {
    let fleet = fleet(&[pod("a", "proxy:1")]);
    fleet.publish(vec![("default".to_owned(), wanted("proxy:1"))]);
    drop(Leading(&fleet));
    assert!(fleet.proxies("default").is_empty() && fleet.summaries().borrow().is_empty());
    assert_eq!(fleet.summary("default", wanted("proxy:1")), None);
}
