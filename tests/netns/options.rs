//! Each option, by where packets end up.

use crate::{
    everywhere,
    pod::{APP, MESHED, PROXY, Pod},
};

fn meshed() -> Pod {
    Pod::new(MESHED)
}

#[test]
fn without_options_everything_goes_through_the_proxy() {
    everywhere(meshed, &[], |pod, at| {
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect(0, at.client, 9999), "outbound", "nothing listens on 9999");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound");
        assert_eq!(pod.connect_from_client(at.pod, 9999), "inbound");
        assert_eq!(pod.connect_from_client(at.pod, 15021), "health", "the proxy's own port");
    });
}

#[test]
fn the_proxys_own_connections_go_where_they_want() {
    everywhere(meshed, &[], |pod, at| {
        assert_eq!(pod.connect(PROXY, at.client, 80), "client");
        assert_eq!(pod.connect_as(APP, PROXY, at.client, 80), "client", "the group is enough");
        assert_eq!(pod.connect_as(PROXY, APP, at.client, 80), "client", "the user is enough");
    });
}

#[test]
fn the_proxy_reaches_its_application_from_the_passthrough_address() {
    everywhere(meshed, &[], |pod, at| {
        assert_eq!(pod.connect_bound(PROXY, at.passthrough, at.pod, 80), "app");
        assert_eq!(pod.connect(PROXY, at.loopback, 80), "app");
        assert_eq!(
            pod.connect(PROXY, at.pod, 80),
            "inbound",
            "a service call that the proxy routed back to its own pod is inbound"
        );
        assert_eq!(pod.connect_as(APP, PROXY, at.pod, 80), "inbound");
    });
}

#[test]
fn an_application_that_talks_to_itself_is_left_alone() {
    everywhere(meshed, &[], |pod, at| {
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
    everywhere(meshed, &flags, |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "app");
        assert_eq!(pod.connect_from_client(at.pod, 9999), "inbound");
        assert_eq!(pod.connect(APP, at.client, 81), "client");
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect(APP, at.other, 80), "client", "an excluded range");
    });
}

#[test]
fn only_what_is_included_is_captured() {
    let flags = [
        "--inbound-ports=9999",
        "--outbound-cidrs=10.77.0.3/32,fd77::3/128",
        "--outbound-ports=81",
    ];
    everywhere(meshed, &flags, |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "app");
        assert_eq!(pod.connect_from_client(at.pod, 9999), "inbound");
        assert_eq!(pod.connect(APP, at.client, 80), "client");
        assert_eq!(pod.connect(APP, at.other, 80), "outbound");
        assert_eq!(pod.connect(APP, at.client, 81), "outbound", "a port, wherever it leads");
    });
}

#[test]
fn empty_lists_capture_nothing() {
    everywhere(meshed, &["--inbound-ports=", "--outbound-cidrs="], |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "app");
        assert_eq!(pod.connect(APP, at.client, 80), "client");
        assert_eq!(pod.connect(PROXY, at.pod, 80), "inbound", "its own pod is no port or range");
    });
}

#[test]
fn loopback_can_be_asked_for_by_its_addresses() {
    everywhere(meshed, &["--outbound-cidrs=127.1.2.0/24"], |pod, at| {
        let v4 = at.pod.contains('.');
        if v4 {
            assert_eq!(pod.connect(APP, "127.1.2.3", 80), "outbound");
        }
        assert_eq!(pod.connect(APP, at.loopback, 80), "app");
        assert_eq!(pod.connect(APP, at.client, 80), "client");
    });
}

#[test]
fn other_ports_and_users_of_the_proxy() {
    let flags = ["--proxy-port=443", "--inbound-port=15021", "--proxy-uid=7", "--proxy-gid=8"];
    everywhere(meshed, &flags, |pod, at| {
        assert_eq!(pod.connect(APP, at.client, 80), "app", "it listens on 443");
        assert_eq!(pod.connect_from_client(at.pod, 80), "health", "it listens on 15021");
        assert_eq!(pod.connect(7, at.client, 80), "client");
        assert_eq!(pod.connect_as(APP, 8, at.client, 80), "client");
        assert_eq!(pod.connect(PROXY, at.client, 80), "app", "a user like others");
    });
}

#[test]
fn interfaces_that_are_not_listed_are_left_alone() {
    everywhere(meshed, &["--interfaces=eth+"], |pod, at| {
        let [pod_second, client_second] = at.second;
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound");
        assert_eq!(pod.connect(APP, client_second, 80), "client");
        assert_eq!(pod.connect_from_client(pod_second, 80), "app");
        assert_eq!(pod.connect(PROXY, at.pod, 80), "inbound", "loopback is always among them");
    });
}

#[test]
fn excluded_interfaces_are_left_alone() {
    everywhere(meshed, &["--exclude-interfaces=net1"], |pod, at| {
        let [pod_second, client_second] = at.second;
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound");
        assert_eq!(pod.connect(APP, client_second, 80), "client");
        assert_eq!(pod.connect_from_client(pod_second, 80), "app");
    });
}

#[test]
fn what_virtual_machines_send_is_outbound() {
    let flags = [
        "--reroute-interfaces=tap+",
        "--exclude-outbound-cidrs=10.77.0.3/32,fd77::3/128",
        "--outbound-ports=81",
    ];
    let machine = || meshed().with_machine();
    everywhere(machine, &flags, |pod, at| {
        assert_eq!(pod.connect_from_machine(at.client, 80), "outbound");
        assert_eq!(pod.connect_from_machine(at.client, 15021), "outbound", "no port is the pod's");
        assert_eq!(pod.connect_from_machine(at.other, 80), "client", "excluded as for the pod");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound");
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
    });
}

#[test]
fn users_and_groups_are_chosen() {
    everywhere(meshed, &["--outbound-uids=1000,1001", "--outbound-gids=100,101"], |pod, at| {
        assert_eq!(pod.connect_as(1001, 100, at.client, 80), "outbound");
        assert_eq!(pod.connect_as(1001, 7, at.client, 80), "client", "not of the groups");
        assert_eq!(pod.connect_as(7, 100, at.client, 80), "client", "not of the users");
    });
}

#[test]
fn users_and_groups_are_excluded() {
    let flags = ["--exclude-outbound-uids=7,8", "--exclude-outbound-gids=9"];
    everywhere(meshed, &flags, |pod, at| {
        assert_eq!(pod.connect_as(8, 100, at.client, 80), "client");
        assert_eq!(pod.connect_as(APP, 9, at.client, 80), "client");
        assert_eq!(pod.connect_as(APP, 100, at.client, 80), "outbound");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound", "whoever listens");
    });
}

#[test]
fn packets_of_no_connection_are_dropped() {
    everywhere(meshed, &["--drop-invalid"], |pod, at| {
        assert_eq!(pod.send_broken(at.client, at.pod, 80), "silence");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound");
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
    });
    everywhere(meshed, &[], |pod, at| {
        assert_eq!(pod.send_broken(at.client, at.pod, 80), "reset", "without the option");
    });
}
