//! What the demo shows and the cluster tests prove, in terms of a running cluster alone.
//!
//! - [`client`] makes requests, from pods and from the machine; [`metrics`] reads what proxies count
//! - [`manifest`] makes Kubernetes objects; [`testbed`] is what most tests share
//! - the other modules are the tests, by what they are about

mod bad_input;
mod balancing;
mod chart;
mod churn;
mod client;
mod cni;
mod collector;
mod definitions;
mod demo;
mod destinations;
mod dns;
mod examples;
mod failover;
mod fleet;
mod gateway;
mod gateways;
mod identity;
mod installation;
mod load;
mod manifest;
mod memory;
mod mesh_config;
mod metrics;
mod operator;
mod probes;
mod protocols;
mod readiness;
mod removal;
mod resilience;
mod revisions;
mod rollouts;
mod testbed;
mod workloads;

use anyhow::Result;

use crate::cluster::Cluster;

pub use self::demo::demo;

/// One test in a cluster that has the mesh installed.
pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Cluster) -> Result<()>,
}

/// Every test, in the order to run them in. They share a testbed, which `cleanup` takes away.
pub fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "installation", run: installation::shows_its_state },
        Scenario { name: "helm-test", run: chart::helm_test_passes },
        Scenario { name: "examples", run: examples::are_accepted },
        Scenario { name: "fleet", run: fleet::is_known },
        Scenario { name: "bad-installation", run: bad_input::invalid_installation_is_refused },
        Scenario { name: "bad-review", run: bad_input::malformed_review_gets_an_error },
        Scenario { name: "bad-routes", run: bad_input::routes_to_nowhere_say_so },
        Scenario { name: "protocols-permissive", run: protocols::permissive },
        Scenario { name: "protocols-strict", run: protocols::strict },
        Scenario { name: "forged-identity", run: identity::forged_identity_is_dropped },
        Scenario { name: "headless", run: destinations::headless },
        Scenario { name: "external-name", run: destinations::external_name },
        Scenario { name: "unknown-destinations", run: destinations::unknown_passes_through },
        Scenario { name: "load-balancing", run: balancing::round_robin_and_least_request },
        Scenario { name: "traffic-split", run: balancing::ninety_to_ten },
        Scenario { name: "gateway-istio", run: gateway::istio },
        Scenario { name: "gateway-api", run: gateway::gateway_api },
        Scenario { name: "gateways", run: gateways::of_an_installation },
        Scenario { name: "gateways-api", run: gateways::of_the_gateway_api },
        Scenario { name: "gateways-many", run: gateways::many },
        Scenario { name: "probes", run: probes::work_under_strict },
        Scenario { name: "jobs", run: workloads::jobs_end },
        Scenario { name: "init-containers", run: workloads::init_containers_use_the_network },
        Scenario { name: "workload-kinds", run: workloads::stateful_and_daemon_sets },
        Scenario { name: "host-network", run: workloads::host_network_is_left_alone },
        Scenario { name: "agent-killed", run: workloads::agent_killed_during_start },
        Scenario { name: "churn", run: churn::no_pod_without_a_proxy },
        Scenario { name: "dns", run: dns::agents_answer },
        Scenario { name: "mesh-config", run: mesh_config::take_effect },
        Scenario { name: "memory", run: memory::within_budget },
        Scenario { name: "rolling-restart", run: resilience::rolling_restart_loses_nothing },
        Scenario { name: "rolling-fleet", run: rollouts::rolling_in_waves },
        Scenario { name: "in-place", run: rollouts::in_place_beside_the_application },
        Scenario { name: "control-plane-outage", run: resilience::control_plane_outage },
        Scenario { name: "certificate-renewal", run: identity::renewal_drops_nothing },
        Scenario { name: "failover", run: failover::leader_dies },
        Scenario { name: "failover-frozen", run: failover::frozen_leader_is_deposed },
        Scenario { name: "operator-restart", run: failover::rolling_restart_misses_no_pod },
        Scenario { name: "two-operators", run: failover::two_at_once_converge },
        Scenario { name: "cni", run: cni::pods_need_no_capability },
        Scenario { name: "operator-drift", run: operator::drift_is_undone },
        Scenario { name: "operator-settled", run: operator::settled_is_quiet },
        Scenario { name: "operator-quota", run: operator::quota_that_is_reached },
        Scenario { name: "operator-image", run: operator::image_that_does_not_pull },
        Scenario { name: "operator-rights", run: operator::right_taken_away },
        Scenario { name: "operator-profiles", run: operator::profiles_in_turn },
        Scenario { name: "revisions", run: revisions::move_by_one_change },
        Scenario { name: "definitions", run: definitions::are_kept_at_the_operators_version },
        Scenario { name: "cleanup", run: testbed::remove },
        // Nothing can run after it: the mesh is gone.
        Scenario { name: "removal", run: removal::leaves_nothing },
    ]
}

/// What is measured and not judged: a busy machine would make a flaky test of it.
pub fn measurements() -> Vec<Scenario> {
    vec![Scenario { name: "readiness", run: readiness::measure_readiness }]
}
