//! A cluster of a few lines in which rollouts run from beginning to end, under any policy.

mod world;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;
use world::{NEW, Options, World};

use crate::operator::rollout::facts::Pod;

fn policy(strategy: FleetStrategy) -> FleetPolicy {
    FleetPolicy { strategy, wave_size: IntOrString::Int(2), ..FleetPolicy::default() }
}

fn rolling(workloads: &[Options]) -> World {
    World::new(policy(FleetStrategy::Rolling), workloads)
}

fn in_place(workloads: &[Options]) -> World {
    World::new(policy(FleetStrategy::InPlace), workloads)
}

#[test]
fn a_wave_is_written_down_before_anything_is_touched() {
    let mut world = rolling(&[Options::default(); 3]);
    let step = world.step();
    assert_eq!(step.actions, []);
    assert_eq!(
        (step.status.phase, step.status.wave, step.status.waves),
        (RolloutPhase::Rolling, 1, 2)
    );
    assert_eq!(step.status.workloads, ["Deployment shop/w0", "Deployment shop/w1"]);
    assert_eq!(step.status.summary, "0/6");
    let step = world.step();
    assert_eq!(step.actions.len(), 2, "{step:?}");
    let step = world.step();
    assert_eq!(step.actions, [], "nothing is restarted twice");
}

#[test]
fn waves_follow_one_another_to_the_end() {
    let mut world = rolling(&[Options::default(); 3]);
    world.run(|_| {});
    assert_eq!(world.status().phase, RolloutPhase::Done);
    assert_eq!((world.status().wave, world.status().waves), (2, 2));
    assert_eq!(world.status().summary, "6/6");
    assert_eq!(world.restarts, [1, 1, 1]);
}

#[test]
fn the_next_wave_waits_for_the_pause() {
    let mut world = rolling(&[Options::default(); 3]);
    world.policy.pause = "1h".to_owned();
    world.run_for(Duration::from_mins(30));
    assert_eq!((world.status().wave, world.restarts.as_slice()), (1, [1, 1, 0].as_slice()));
    assert!(world.status().message.contains("serves 1h"), "{}", world.status().message);
    world.run_for(Duration::from_hours(2));
    assert_eq!(world.status().phase, RolloutPhase::Done);
}

#[test]
fn a_budget_without_room_keeps_its_workload_and_says_so() {
    let blocked = Options { budget: Some(0), ..Options::default() };
    let mut world = rolling(&[blocked, Options::default()]);
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.restarts, [0, 1]);
    assert_eq!(world.status().phase, RolloutPhase::Waiting);
    let message = &world.status().message;
    assert!(message.contains("PodDisruptionBudget shop/w0 allows no disruption"), "{message}");
    world.workloads[0].options.budget = Some(1);
    world.run(|_| {});
    assert_eq!(world.restarts, [1, 1]);
    assert_eq!(world.status().phase, RolloutPhase::Done);
}

#[test]
fn a_failed_wave_stops_until_somebody_says_go_on() {
    let bad = Options { fails: true, ..Options::default() };
    for strategy in [FleetStrategy::Rolling, FleetStrategy::InPlace] {
        let mut world =
            World::new(policy(strategy), &[bad, Options::default(), Options::default()]);
        world.policy.wave_size = IntOrString::Int(1);
        world.run_for(Duration::from_hours(1));
        assert_eq!(world.status().phase, RolloutPhase::Stopped, "{:?}", world.status());
        let message = world.status().message.clone();
        for part in ["wave 1 failed", "Deployment shop/w0", "ImagePullBackOff", "resume-rollout"] {
            assert!(message.contains(part), "{part} is missing in {message}");
        }
        assert!(world.untouched(1) && world.untouched(2), "others are left alone");
        world.workloads[0].options.fails = false;
        world.run_for(Duration::from_hours(1));
        assert_eq!(world.status().message, message, "it stays stopped, in the same words");
        "1".clone_into(&mut world.resume);
        world.run(|_| {});
        assert_eq!(world.status().phase, RolloutPhase::Done, "{:?}", world.status());
    }
}

#[test]
fn a_changed_spec_lets_it_go_on_and_a_new_image_begins_anew() {
    let bad = Options { fails: true, ..Options::default() };
    let mut world = rolling(&[bad]);
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.status().phase, RolloutPhase::Stopped);
    world.workloads[0].options.fails = false;
    world.generation += 1;
    world.run(|_| {});
    assert_eq!((world.status().phase, world.status().wave), (RolloutPhase::Done, 2));
    world.image = "proxy:3";
    world.generation += 1;
    world.run(|_| {});
    assert_eq!((world.status().phase, world.status().wave), (RolloutPhase::Done, 1));
    assert_eq!(world.status().image, "proxy:3");
}

#[test]
fn a_proxy_that_fails_in_place_gets_its_former_image_back() {
    let bad = Options { fails: true, replicas: 3, ..Options::default() };
    let mut world = in_place(&[bad]);
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.status().phase, RolloutPhase::Stopped);
    assert!(world.untouched(0), "{:?}", world.workloads[0].pods);
    assert!(world.workloads[0].pods.iter().all(|pod| pod.ready && !pod.in_flight()));
}

#[test]
fn in_place_takes_one_pod_after_another_out_of_service_first() {
    let mut world = in_place(&[Options { replicas: 3, ..Options::default() }]);
    let mut replaced = 0;
    world.run(|world| {
        assert!(world.workloads[0].pods.iter().filter(|pod| !pod.ready).count() <= 1);
        for action in &world.last {
            if let Action::Replace { pod, .. } = action {
                let pod = world.workloads[0].pods.iter().find(|p| p.at == *pod).unwrap();
                assert!(!pod.ready, "it was out of service");
                replaced += 1;
            }
        }
    });
    assert_eq!((replaced, world.restarts[0]), (3, 0));
    assert_eq!(world.status().phase, RolloutPhase::Done);
    assert!(world.workloads[0].pods.iter().all(|pod| !pod.in_flight()));
}

#[test]
fn the_only_pod_of_a_workload_is_replaced_where_it_is() {
    let mut world = in_place(&[Options { replicas: 1, ..Options::default() }]);
    let mut taken_out = false;
    world.run(|world| {
        taken_out |= world.last.iter().any(|action| matches!(action, Action::TakeOut(_)));
    });
    assert!(!taken_out);
    assert_eq!(world.status().phase, RolloutPhase::Done);
}

#[test]
fn when_nothing_is_asked_for_any_more_pods_come_back() {
    let mut world = in_place(&[Options { replicas: 2, ..Options::default() }]);
    while !world.workloads[0].pods.iter().any(Pod::in_flight) {
        world.step();
        world.pass(Duration::from_secs(2));
    }
    world.policy.strategy = FleetStrategy::Rolling;
    world.run(|_| {});
    assert_eq!(world.status().phase, RolloutPhase::Done);
    assert!(world.workloads[0].pods.iter().all(|pod| !pod.in_flight()));
    let facts: Vec<_> = world.workloads.iter().map(world::Simulated::facts).collect();
    assert_eq!(end(&facts), []);
}

#[test]
fn more_errors_than_allowed_stop_it() {
    let mut world = rolling(&[Options::default(); 3]);
    world.requests = Some((Requests { all: 1000, failed: 10 }, Requests { all: 50, failed: 10 }));
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.status().phase, RolloutPhase::Stopped);
    let message = &world.status().message;
    assert!(message.contains("20.0 %") && message.contains("1.0 %"), "{message}");
    let mut world = rolling(&[Options::default(); 3]);
    world.requests = Some((Requests { all: 1000, failed: 10 }, Requests { all: 1000, failed: 59 }));
    world.run(|_| {});
    assert_eq!(world.status().phase, RolloutPhase::Done, "4.9 points more are allowed");
}

#[test]
fn while_it_is_paused_or_the_control_plane_is_not_ready_nothing_is_touched() {
    let mut world = rolling(&[Options::default(); 3]);
    world.policy.paused = true;
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.status().message, "spec.fleet.paused is true");
    world.policy.paused = false;
    world.gate = Some("the control plane is not ready".to_owned());
    world.run_for(Duration::from_hours(1));
    assert_eq!(world.status().message, "the control plane is not ready");
    assert_eq!(world.restarts, [0, 0, 0]);
    world.gate = None;
    world.run(|_| {});
    assert_eq!(world.restarts, [1, 1, 1]);
}

#[test]
fn groups_are_renewed_one_after_another() {
    let last = Options { group: 1, ..Options::default() };
    let mut world = rolling(&[last, Options::default(), last]);
    world.policy.wave_size = IntOrString::String("100%".to_owned());
    let step = world.step();
    assert_eq!(step.status.workloads, ["Deployment shop/w1"]);
    assert_eq!(step.status.waves, 2);
    world.run(|_| {});
    assert_eq!(world.status().phase, RolloutPhase::Done);
}

#[test]
fn a_workload_that_keeps_another_image_is_restarted_once_and_named() {
    for on_delete in [false, true] {
        let stubborn = Options { stubborn: true, on_delete, ..Options::default() };
        let mut world = rolling(&[stubborn, Options::default()]);
        world.run(|_| {});
        assert_eq!(world.restarts, [1, 1]);
        assert_eq!(world.status().phase, RolloutPhase::Done);
        let message = &world.status().message;
        assert!(message.contains("still with another image: Deployment shop/w0"), "{message}");
        assert_eq!(world.status().manual, 2);
    }
}

#[test]
fn pods_that_only_deletion_renews_are_evicted_one_by_one() {
    let on_delete = Options { on_delete: true, replicas: 3, budget: Some(1), ..Options::default() };
    let mut world = rolling(&[on_delete]);
    world.run(|world| {
        assert!(world.last.len() <= 1, "{:?}", world.last);
        let evicts = |action: &Action| matches!(action, Action::Evict(_) | Action::Restart(_));
        assert!(world.last.iter().all(evicts));
    });
    assert_eq!(world.status().phase, RolloutPhase::Done);
    assert_eq!(world.restarts, [1], "so that the new pods say what they were made for");
}

fn options() -> impl Strategy<Value = Options> {
    let budget = prop_oneof![Just(None), (0..3usize).prop_map(Some)];
    (1..4usize, budget, 0..5usize, any::<bool>(), any::<bool>(), 0..2usize).prop_map(
        |(replicas, budget, failing, on_delete, slow, group)| Options {
            replicas,
            budget,
            fails: failing == 0,
            on_delete,
            slow,
            group,
            stubborn: false,
        },
    )
}

fn policies() -> impl Strategy<Value = FleetPolicy> {
    let size = prop_oneof![
        (1..4i32).prop_map(IntOrString::Int),
        (1..100u8).prop_map(|percent| IntOrString::String(format!("{percent}%"))),
    ];
    let strategy = prop_oneof![Just(FleetStrategy::Rolling), Just(FleetStrategy::InPlace)];
    (size, strategy, 1..3i32, 0..30u8).prop_map(|(wave_size, strategy, most, pause)| FleetPolicy {
        strategy,
        wave_size,
        max_unavailable: IntOrString::Int(most),
        pause: format!("{pause}s"),
        ..FleetPolicy::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_rollout_ever_does_what_it_must_not(
        policy in policies(),
        options in prop::collection::vec(options(), 1..7),
    ) {
        let mut world = World::new(policy, &options);
        let size = wave_size(&world.policy, options.len());
        let mut ended = 0;
        world.run(|world| {
            let status = world.status();
            // Never more than a wave at once, never the next before the former is ready.
            assert!(status.workloads.len() <= size);
            let moving = world.workloads.iter().filter(|workload| workload.is_moving()).count();
            assert!(moving <= size, "{moving} move, {size} may");
            for action in &world.last {
                let workload = world.workload_of(action);
                let new = matches!(action, Action::Restart(_) | Action::Evict(_) | Action::TakeOut(_));
                // A budget without room keeps everything from being touched, but what is down already.
                let down = workload.facts().only_proxies_fail();
                assert!(!(new && workload.options.budget == Some(0)) || down, "{action:?}");
                let text = facts::text(&workload.facts().workload);
                assert!(status.workloads.contains(&text), "{text} is not in the wave");
                // A stopped rollout only brings back.
                let back = matches!(action, Action::PutBack(_) | Action::Restore { .. });
                assert!(status.phase != RolloutPhase::Stopped || back, "{action:?}");
            }
            ended = ended.max(status.wave);
        });
        let status = world.status();
        let blocked = options.iter().any(|workload| workload.budget == Some(0));
        let fails = options.iter().any(|workload| workload.fails);
        match status.phase {
            // If every restart succeeds and nothing is in the way, it comes to its end.
            RolloutPhase::Done => prop_assert!(world.is_renewed(NEW), "{status:?}"),
            RolloutPhase::Stopped => prop_assert!(fails, "{status:?}"),
            _ => prop_assert!(blocked, "{status:?}"),
        }
    }

    #[test]
    fn the_same_situation_always_gives_the_same_step(
        policy in policies(),
        options in prop::collection::vec(options(), 1..5),
        steps in 0..40usize,
    ) {
        let mut world = World::new(policy, &options);
        for _ in 0..steps {
            world.step();
            world.pass(Duration::from_secs(2));
        }
        // Another operator that takes over here knows no more than this one.
        prop_assert_eq!(world.plan(), world.plan());
    }
}
