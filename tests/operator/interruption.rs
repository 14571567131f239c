//! Operators that are killed at every step, and two at once.

use serde_json::{Value, json};

use crate::fixture::{Fixture, PATH};

fn spec() -> Value {
    json!({"profile": "ha", "gateways": [{"name": "edge", "namespace": "edge"}, {"name": "b"}]})
}

/// Whatever call an operator dies after, the next one gets to the same end: installed, changed and
/// removed.
#[tokio::test]
async fn killed_after_each_call_it_converges() {
    let stages: [fn(&Fixture); 3] = [
        |_| {},
        |mesh| mesh.set_spec(&json!({"version": "2", "gateways": [{"name": "b"}]})),
        |mesh| {
            let now = json!("2026-01-01T00:00:00Z");
            mesh.state().objects.get_mut(PATH).unwrap()["metadata"]["deletionTimestamp"] = now;
        },
    ];
    for last in 0..stages.len() {
        let undisturbed = Fixture::new(&spec());
        let mut calls = 0;
        for stage in &stages[..=last] {
            stage(&undisturbed);
            undisturbed.state().calls.clear();
            assert_eq!(undisturbed.run().await.0, None);
            calls = undisturbed.state().calls.len();
        }
        for killed_after in 0..calls {
            let mesh = Fixture::new(&spec());
            for stage in &stages[..last] {
                stage(&mesh);
                mesh.run().await;
            }
            stages[last](&mesh);
            mesh.state().calls_left = Some(killed_after);
            mesh.run().await;
            mesh.state().calls_left = None;
            let next = mesh.another();
            let (error, _) = next.run().await;
            assert_eq!(error, None, "stage {last}, killed after {killed_after} calls");
            assert_eq!(
                next.objects(),
                undisturbed.objects(),
                "stage {last}, killed after {killed_after} calls"
            );
        }
    }
}

/// Two operators that both think they lead end where one ends, and then neither writes.
#[tokio::test]
async fn two_at_once_converge_and_do_not_fight() {
    let alone = Fixture::new(&spec());
    alone.run().await;
    // One begins when the other has made some calls.
    for ahead in [0, 1, 5, 14, 15, 20, 25, 30, 35] {
        let one = Fixture::new(&spec());
        let two = one.another();
        let late = async {
            // The first makes more calls than that, or this would wait for ever.
            for _ in 0..100_000 {
                if one.state().calls.len() >= ahead {
                    break;
                }
                tokio::task::yield_now().await;
            }
            two.run().await
        };
        let ((first, _), (second, _)) = tokio::join!(one.run(), late);
        assert_eq!((first, second), (None, None), "{ahead} calls ahead");
        assert_eq!(one.objects(), alone.objects(), "{ahead} calls ahead");
        for _ in 0..3 {
            assert_eq!(one.run().await, (None, vec![]), "{ahead} calls ahead");
            assert_eq!(two.run().await, (None, vec![]), "{ahead} calls ahead");
        }
    }
}

/// An API server that is away is told apart from one that refuses: a few calls, not one for each
/// object.
#[tokio::test]
async fn an_outage_is_not_hammered() {
    let mesh = Fixture::new(&spec());
    mesh.state().calls_left = Some(0);
    let (error, writes) = mesh.run().await;
    assert!(error.is_some());
    assert_eq!(writes, Vec::<String>::new());
    let attempts = mesh.state().attempts;
    assert!(attempts < 10, "{attempts} calls");
}
