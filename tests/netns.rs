//! The redirection with real packets: rules applied by the real binary in network namespaces of
//! their own, real connections through them. Needs root.
//!
//! The programs that listen and connect inside a namespace are this test binary itself, started
//! again for the one test `inside` by `nsenter`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this is test code, also what stands outside of test functions"
)]

#[path = "netns/inside.rs"]
mod inside;
#[path = "netns/pod.rs"]
mod pod;

use pod::{Pod, Run};

/// The proxy's user; its connections are its own.
const PROXY: u32 = 1337;
/// Some application's user.
const APP: u32 = 1000;

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// Runs `check` for each backend, over IPv4 and over IPv6, in fresh namespaces.
fn everywhere(flags: &[&str], check: impl Fn(&Pod, &Addresses)) {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.redirect(backend, flags).expect_success();
        for addresses in [&pod::V4, &pod::V6] {
            println!("{backend}, {}", addresses.pod);
            check(&pod, addresses);
        }
    }
}

use pod::Addresses;

#[test]
fn outbound_connections_reach_the_proxy_whatever_their_port() {
    everywhere(&[], |pod, at| {
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect(0, at.client, 9999), "outbound", "nothing listens on 9999");
    });
}

#[test]
fn inbound_connections_reach_the_proxy_and_its_own_ports_do_not() {
    everywhere(&[], |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound");
        assert_eq!(pod.connect_from_client(at.pod, 9999), "inbound");
        assert_eq!(pod.connect_from_client(at.pod, 15021), "health");
    });
}

#[test]
fn the_proxys_own_connections_go_where_they_want() {
    everywhere(&[], |pod, at| {
        assert_eq!(pod.connect(PROXY, at.client, 80), "client");
        assert_eq!(
            pod.connect_as(APP, PROXY, at.client, 80),
            "client",
            "the group alone is enough"
        );
    });
}

#[test]
fn the_proxy_reaches_its_application_from_the_passthrough_address() {
    everywhere(&[], |pod, at| {
        assert_eq!(pod.connect_bound(PROXY, at.passthrough, at.pod, 80), "app");
        assert_eq!(pod.connect(PROXY, at.loopback, 80), "app");
        assert_eq!(
            pod.connect(PROXY, at.pod, 80),
            "inbound",
            "a service call that the proxy routed back to its own pod is inbound"
        );
    });
}

#[test]
fn an_application_that_talks_to_itself_is_left_alone() {
    everywhere(&[], |pod, at| {
        assert_eq!(pod.connect(APP, at.loopback, 80), "app");
        assert_eq!(pod.connect(APP, at.pod, 80), "app");
    });
}

#[test]
fn excluded_ports_and_ranges_are_untouched() {
    let flags = [
        "--exclude-inbound-ports=80",
        "--exclude-outbound-ports=81",
        "--exclude-outbound-cidrs=10.77.0.3/32,fd77::3/128",
    ];
    everywhere(&flags, |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "app");
        assert_eq!(pod.connect_from_client(at.pod, 9999), "inbound");
        assert_eq!(pod.connect(APP, at.client, 81), "client");
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect(APP, at.other, 80), "client", "an excluded range");
    });
}

#[test]
fn only_what_is_included_is_captured() {
    let flags = ["--inbound-ports=9999", "--outbound-cidrs=10.77.0.3/32,fd77::3/128"];
    everywhere(&flags, |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "app");
        assert_eq!(pod.connect_from_client(at.pod, 9999), "inbound");
        assert_eq!(pod.connect(APP, at.client, 80), "client");
        assert_eq!(pod.connect(APP, at.other, 80), "outbound");
    });
}

#[test]
fn running_again_changes_nothing() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.redirect(backend, &[]).expect_success();
        let first = pod.rules(backend);
        assert!(first.contains("MESHWRIGHT_OUTPUT"), "{first}");
        pod.redirect(backend, &[]).expect_success();
        assert_eq!(pod.rules(backend), first, "{backend}");
    }
}

/// While the rules are replaced again and again by others, not one connection gets past both.
#[test]
fn rules_are_replaced_without_a_gap() {
    for backend in BACKENDS {
        let pod = Pod::new();
        pod.redirect(backend, &[]).expect_success();
        let connections = pod.connect_repeatedly(APP, pod::V4.client, 80, 1500);
        for round in 0..20 {
            let other = ["--exclude-outbound-ports=4444", "--exclude-outbound-ports=5555"];
            pod.redirect(backend, &[other[round % 2]]).expect_success();
        }
        let seen = connections.finish();
        assert!(seen.len() >= 500, "{} connections", seen.len());
        let escaped = seen.iter().filter(|reply| *reply != "outbound").count();
        assert_eq!(escaped, 0, "{backend}: of {} connections", seen.len());
    }
}

#[test]
fn the_tool_is_chosen_at_run_time() {
    let pod = Pod::new();
    pod.redirect("auto", &[]).expect_success();
    assert_eq!(pod.connect(APP, pod::V4.client, 80), "outbound");
}

#[test]
fn without_net_admin_it_says_so() {
    let pod = Pod::new();
    let Run { success, stderr } = pod.redirect_without_net_admin();
    assert!(!success);
    assert!(stderr.contains("lacks the capability NET_ADMIN"), "{stderr}");
}

#[test]
fn without_ipv6_only_ipv4_is_redirected() {
    for backend in BACKENDS {
        let pod = Pod::without_ipv6();
        pod.redirect(backend, &[]).expect_success();
        assert_eq!(pod.connect(APP, pod::V4.client, 80), "outbound");
        assert!(!pod.rules("nftables").contains("table ip6 meshwright"));
    }
}
