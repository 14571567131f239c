use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// One of a few states of one of a few pods.
#[expect(clippy::struct_excessive_bools, reason = "each varies by itself")]
#[derive(Clone, Copy, Debug)]
struct Seen {
    pod: u8,
    ready: bool,
    over: bool,
    injected: bool,
    pinned: bool,
    image: u8,
}

fn pod(seen: Seen) -> InjectedPod {
    let Seen { pod, ready, over, injected, pinned, image } = seen;
    let mut value = json!({
        "metadata": {
            "uid": format!("uid-{pod}"), "name": format!("pod-{pod}"),
            "namespace": format!("ns-{}", pod % 2),
            "labels": {REVISION: format!("r{}", image % 2), "pod-template-hash": "7f"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{}-7f", pod % 3),
                "uid": "u", "controller": true,
            }],
        },
        "spec": {"containers": [{"name": "web"}]},
        "status": {
            "phase": if over { "Succeeded" } else { "Running" },
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
        },
    });
    if injected {
        let proxy = json!({"name": "meshwright-proxy", "image": format!("proxy:{image}")});
        value["spec"]["initContainers"] = json!([proxy]);
    }
    if pinned {
        value["metadata"]["annotations"] = json!({"meshwright.dev/proxy-image": "own:1"});
    }
    serde_json::from_value(value).unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Seen),
    Delete(u8),
    /// The watch begins anew; this many pods of the list come before it has to begin once more.
    Relist(usize),
}

fn seen() -> impl Strategy<Value = Seen> {
    (0..6u8, any::<[bool; 4]>(), 0..3u8).prop_map(|(pod, flags, image)| Seen {
        pod,
        ready: flags[0],
        over: flags[1],
        injected: flags[2],
        pinned: flags[3],
        image,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => seen().prop_map(Step::Apply),
        2 => (0..6u8).prop_map(Step::Delete),
        1 => (0..4usize).prop_map(Step::Relist),
    ]
}

fn list(table: &mut Table, pods: &BTreeMap<u8, Seen>) {
    table.see(Event::Init);
    for seen in pods.values() {
        table.see(Event::InitApply(pod(*seen)));
    }
    table.see(Event::InitDone);
}

fn shown(table: &Table) -> BTreeMap<String, Record> {
    table.records().map(|(uid, record)| (uid.to_owned(), record.clone())).collect()
}

proptest! {
    #[test]
    fn any_way_leads_to_the_same_table_as_a_list(steps in prop::collection::vec(step(), 0..40)) {
        let (mut table, mut pods) = (Table::default(), BTreeMap::new());
        list(&mut table, &pods);
        for step in steps {
            match step {
                Step::Apply(seen) => {
                    pods.insert(seen.pod, seen);
                    table.see(Event::Apply(pod(seen)));
                }
                Step::Delete(number) => {
                    if let Some(seen) = pods.remove(&number) {
                        table.see(Event::Delete(pod(seen)));
                    }
                }
                Step::Relist(before) => {
                    table.see(Event::Init);
                    for seen in pods.values().take(before) {
                        table.see(Event::InitApply(pod(*seen)));
                    }
                    list(&mut table, &pods);
                }
            }
        }
        let mut fresh = Table::default();
        list(&mut fresh, &pods);
        prop_assert_eq!(shown(&table), shown(&fresh));
    }
}

fn running(number: u8) -> Seen {
    Seen { pod: number, ready: true, over: false, injected: true, pinned: false, image: 1 }
}

#[test]
fn only_pods_that_run_a_proxy_count() {
    let mut table = Table::default();
    assert!(!table.is_listed());
    let over = Seen { over: true, ..running(2) };
    let labelled = Seen { injected: false, ..running(3) };
    list(&mut table, &[(1, running(1)), (2, over), (3, labelled)].into());
    assert!(table.is_listed());
    let uids: Vec<_> = table.records().map(|(uid, _)| uid).collect();
    assert_eq!(uids, ["uid-1"]);
    assert!(table.knows("uid-3") && !table.knows("uid-4"));
    let (uid, record) = table.records().next().unwrap();
    let proxy = record.proxy(uid, Configuration::Current, None);
    let workload = proxy.workload.unwrap();
    assert_eq!(
        (&*workload.kind, &*workload.namespace, &*workload.name),
        ("Deployment", "ns-1", "web-1")
    );
    assert_eq!((&*proxy.image, &*proxy.revision, proxy.ready), ("proxy:1", "r1", true));
}

#[test]
fn equal_strings_are_one_and_go_with_the_last_who_has_them() {
    let mut table = Table::default();
    list(&mut table, &(0..6).map(|number| (number, running(number))).collect());
    let images: Vec<_> = table.records().map(|(_, record)| record.image.clone()).collect();
    assert!(images.iter().all(|image| Arc::ptr_eq(image, &images[0])));
    drop(images);
    list(&mut table, &BTreeMap::new());
    assert_eq!(table.texts.values.len(), 0);
}
