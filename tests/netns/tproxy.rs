//! Transparent sockets: the application sees its client's address, the proxy is in between.

use crate::{
    everywhere,
    pod::{APP, PROXY, Pod, TRANSPARENT},
};

fn transparent() -> Pod {
    Pod::new(TRANSPARENT)
}

const FLAGS: [&str; 1] = ["--mode=tproxy"];

#[test]
fn the_application_sees_its_client() {
    everywhere(transparent, &FLAGS, |pod, at| {
        for client in [at.client, at.other] {
            let seen = pod.seen_from_client(client, at.pod, 80);
            assert_eq!(seen, format!("inbound>app {client}"));
        }
        assert_eq!(pod.connect_from_client(at.pod, 15021), "health", "the proxy's own port");
    });
}

#[test]
fn outbound_is_as_without() {
    everywhere(transparent, &FLAGS, |pod, at| {
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect_as(0, PROXY, at.client, 80), "client");
        assert_eq!(pod.connect(APP, at.pod, 80), "app");
        assert_eq!(pod.connect(APP, at.loopback, 80), "app");
    });
}

#[test]
fn the_proxy_as_a_client_of_its_own_pod_is_inbound() {
    everywhere(transparent, &FLAGS, |pod, at| {
        let seen = pod.seen_from_inside(PROXY, at.pod, 80);
        assert_eq!(seen, format!("inbound>app {}", at.pod));
        assert_eq!(pod.connect_bound(PROXY, at.passthrough, at.pod, 80), "app", "a probe");
        assert_eq!(pod.connect(PROXY, at.loopback, 80), "app");
    });
}

#[test]
fn ports_and_interfaces_are_chosen() {
    let flags = ["--mode=tproxy", "--inbound-ports=80", "--exclude-interfaces=net1"];
    everywhere(transparent, &flags, |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound>app");
        assert_eq!(pod.connect_from_client(at.pod, 443), "app");
        assert_eq!(pod.connect_from_client(at.second[0], 80), "app");
    });
    let flags = ["--mode=tproxy", "--exclude-inbound-ports=80", "--interfaces=eth0"];
    everywhere(transparent, &flags, |pod, at| {
        assert_eq!(pod.connect_from_client(at.pod, 80), "app");
        assert_eq!(pod.connect_from_client(at.pod, 443), "inbound>app");
        assert_eq!(pod.connect_from_client(at.second[0], 443), "app");
        assert_eq!(pod.connect(PROXY, at.pod, 443), "inbound>app");
    });
}

#[test]
fn virtual_machines_are_not_taken_for_clients() {
    let machine = || transparent().with_machine();
    everywhere(machine, &["--mode=tproxy", "--reroute-interfaces=tap0"], |pod, at| {
        assert_eq!(pod.connect_from_machine(at.client, 80), "outbound");
        assert_eq!(pod.connect_from_client(at.pod, 80), "inbound>app");
    });
}

#[test]
fn dns_and_broken_packets() {
    let with_dns = || transparent().with_dns();
    everywhere(with_dns, &["--mode=tproxy", "--dns=all", "--drop-invalid"], |pod, at| {
        assert_eq!(pod.ask(APP, at.client), "agent");
        assert_eq!(pod.ask(PROXY, at.client), "server");
        assert_eq!(pod.connect(APP, at.client, 53), "agent");
        assert_eq!(pod.send_broken(at.client, at.pod, 80), "silence");
        assert_eq!(
            pod.seen_from_client(at.client, at.pod, 80),
            format!("inbound>app {}", at.client)
        );
    });
}

/// Without a proxy nobody gets past it.
#[test]
fn nobody_listens() {
    let without = || Pod::new(crate::pod::BARE);
    everywhere(without, &FLAGS, |pod, at| {
        let answer = pod.connect_impatiently(at.pod, 80);
        assert!(answer.starts_with("error"), "{answer}");
    });
}

#[test]
fn the_mode_can_change() {
    for backend in crate::BACKENDS {
        let pod = transparent();
        pod.redirect(backend, &FLAGS).expect_success();
        let first = pod.rules();
        assert!(first.contains("fwmark 0x539 lookup 133"), "{first}");
        assert!(first.contains("local default dev lo"), "{first}");
        pod.redirect(backend, &FLAGS).expect_success();
        assert_eq!(pod.rules(), first, "a second run changes nothing");
        pod.redirect(backend, &[]).expect_success();
        let rules = pod.rules();
        assert!(!rules.contains("fwmark") && !rules.contains("local default"), "{rules}");
        assert!(!rules.contains("MESHWRIGHT_TPROXY"), "{rules}");
        // Routes that somebody took away come back.
        pod.redirect(backend, &FLAGS).expect_success();
        pod.shell("ip rule delete fwmark 1337 table 133; ip -6 route flush table 133");
        let log = pod.redirect(backend, &FLAGS).expect_success();
        assert!(log.contains("policy routing is put right"), "{log}");
        assert_eq!(pod.rules(), first);
    }
}
