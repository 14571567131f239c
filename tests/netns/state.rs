//! What there is already: earlier runs, other tools, other people.

use std::collections::BTreeSet;

use crate::{
    BACKENDS,
    pod::{APP, Kind, MESHED, Pod, Run, V4, V6},
};

/// Some of every table.
const RICH: [&str; 3] = ["--dns=all", "--drop-invalid", "--exclude-outbound-ports=3306"];

#[test]
fn running_again_changes_nothing() {
    for backend in BACKENDS {
        let pod = Pod::new(MESHED);
        pod.redirect(backend, &RICH).expect_success();
        let first = pod.rules();
        assert!(first.contains("MESHWRIGHT_OUTPUT"), "{first}");
        let events = pod.shell("nft monitor >/tmp/$$ 2>&1 & m=$!; sleep 0.2; echo $m /tmp/$$");
        let log = pod.redirect(backend, &RICH).expect_success();
        assert_eq!(log.matches("traffic is redirected already").count(), 2, "{log}");
        assert_eq!(pod.rules(), first, "{backend}");
        let (process, file) = events.trim().split_once(' ').unwrap();
        pod.shell(&format!("kill {process}"));
        let seen = std::fs::read_to_string(file).unwrap();
        std::fs::remove_file(file).unwrap();
        assert_eq!(seen, "", "the kernel was told nothing: {backend}");
    }
}

#[test]
fn other_options_replace_the_rules() {
    for backend in BACKENDS {
        let pod = Pod::new(MESHED);
        pod.redirect(backend, &RICH).expect_success();
        let log = pod.redirect(backend, &[]).expect_success();
        assert_eq!(log.matches("a run with other options are replaced").count(), 2, "{log}");
        let rules = pod.rules();
        for gone in ["MESHWRIGHT_DNS", "MESHWRIGHT_INVALID", "3306"] {
            assert!(!rules.contains(gone), "{backend}: {rules}");
        }
        assert_eq!(pod.connect(APP, V4.client, 80), "outbound");
    }
}

/// While the rules are replaced again and again by others, not one connection gets past both.
#[test]
fn rules_are_replaced_without_a_gap() {
    for backend in BACKENDS {
        let pod = Pod::new(MESHED);
        pod.redirect(backend, &[]).expect_success();
        let connections = pod.connect_repeatedly(APP, V4.client, 80, 1500);
        for round in 0..8 {
            let other = ["--exclude-outbound-ports=4444", "--exclude-outbound-ports=5555"];
            pod.redirect(backend, &["--no-probe", other[round % 2]]).expect_success();
        }
        none_escaped(backend, &connections.finish());
    }
}

fn none_escaped(backend: &str, seen: &[String]) {
    assert!(seen.len() >= 100, "{} connections", seen.len());
    let escaped: BTreeSet<&String> = seen.iter().filter(|reply| *reply != "outbound").collect();
    assert!(escaped.is_empty(), "{backend}: of {} connections {escaped:?}", seen.len());
}

/// Deletes a rule of ours and adds others, none of which lets a connection escape.
fn disturb(pod: &Pod, backend: &str) {
    let command = match backend {
        "nftables" => {
            "nft insert rule ip meshwright MESHWRIGHT_OUTPUT tcp dport 4444 return; \
             nft flush chain ip meshwright MESHWRIGHT_INVALID; \
             nft add chain ip6 meshwright STRANGE"
        }
        "iptables" => {
            "iptables-nft -t nat -I MESHWRIGHT_OUTPUT -p tcp --dport 4444 -j RETURN; \
             iptables-nft -t mangle -F MESHWRIGHT_INVALID; \
             ip6tables-nft -t raw -D PREROUTING -p udp -j MESHWRIGHT_DNS_IN"
        }
        _ => {
            "iptables-legacy -w -t nat -I MESHWRIGHT_OUTPUT -p tcp --dport 4444 -j RETURN; \
             iptables-legacy -w -t mangle -F MESHWRIGHT_INVALID; \
             ip6tables-legacy -w -t raw -D PREROUTING -p udp -j MESHWRIGHT_DNS_IN"
        }
    };
    pod.shell(command);
}

#[test]
fn drift_is_told_and_repaired_without_a_gap() {
    for backend in BACKENDS {
        let pod = Pod::new(MESHED);
        pod.redirect(backend, &RICH).expect_success();
        let first = pod.rules();
        let connections = pod.connect_repeatedly(APP, V4.client, 80, 1500);
        let mut log = String::new();
        for _ in 0..3 {
            disturb(&pod, backend);
            log = pod.redirect(backend, &RICH).expect_success();
            assert_eq!(pod.rules(), first, "{backend}");
        }
        none_escaped(backend, &connections.finish());
        assert_eq!(log.matches("somebody had changed the rules").count(), 2, "{log}");
        let told = match backend {
            "nftables" => ["missing: `ct state invalid drop`", "not ours: `tcp dport 4444 return`"],
            _ => [
                "missing: `mangle: -A MESHWRIGHT_INVALID -m conntrack --ctstate INVALID -j DROP`",
                "not ours: `nat: -A MESHWRIGHT_OUTPUT -p tcp -m tcp --dport 4444 -j RETURN`",
            ],
        };
        for told in told {
            assert!(log.contains(told), "{told}: {log}");
        }
    }
}

/// Without the remembered fingerprint nobody knows whose the rules are.
#[test]
fn rules_without_their_fingerprint_are_put_in_place_anew() {
    let pod = Pod::new(MESHED);
    pod.redirect("iptables", &[]).expect_success();
    let first = pod.rules();
    pod.shell(
        "iptables-nft -t nat -X $(iptables-nft-save -t nat | grep -oE 'MESHWRIGHT_[0-9a-f]{16}')",
    );
    let log = pod.redirect("iptables", &[]).expect_success();
    assert!(log.contains("not ours for certain"), "{log}");
    assert_eq!(pod.rules(), first);
}

#[test]
fn another_tool_takes_over_without_a_gap() {
    let pod = Pod::new(MESHED);
    pod.redirect("nftables", &RICH).expect_success();
    let connections = pod.connect_repeatedly(APP, V4.client, 80, 1500);
    for backend in ["iptables", "legacy", "nftables", "legacy", "iptables"] {
        let log = pod.redirect(backend, &["--no-probe"]).expect_success();
        if backend != "legacy" {
            assert!(log.contains("with another tool are taken away"), "{backend}: {log}");
        }
    }
    none_escaped("all", &connections.finish());
    let rules = pod.rules();
    assert!(!rules.contains("table ip meshwright"), "{rules}");
    for (tool, present) in [("iptables-nft-save", true), ("iptables-legacy-save", false)] {
        let found = pod.shell(tool).contains("MESHWRIGHT");
        assert_eq!(found, present, "{tool}");
    }
    assert_eq!(pod.connect_from_client(V6.pod, 80), "inbound");
}

/// IPv4 has its new rules when those of IPv6 are refused.
#[test]
fn a_tool_that_fails_halfway_leaves_what_there_was() {
    let pod = Pod::new(MESHED);
    let complaint = pod.redirect("half", &RICH).expect_failure();
    assert!(complaint.contains("Tried:") && complaint.contains("ip6tables-legacy"), "{complaint}");
    assert!(!pod.rules().contains("MESHWRIGHT"), "nothing");
    pod.redirect("legacy", &RICH).expect_success();
    let first = pod.rules();
    pod.redirect("half", &["--mode=tproxy", "--inbound-ports=80"]).expect_failure();
    let log = pod.redirect("legacy", &RICH).expect_success();
    assert_eq!(log.matches("traffic is redirected already").count(), 2, "{log}");
    assert_eq!(pod.rules(), first);
}

#[test]
fn rules_are_taken_away_and_other_peoples_stay() {
    for backend in BACKENDS {
        let pod = Pod::new(MESHED);
        pod.shell(
            "nft add table ip other; nft add chain ip other c; nft add rule ip other c drop; \
             iptables-nft -t nat -N OTHER; iptables-nft -t nat -A OUTPUT -p tcp --dport 7 -j OTHER; \
             iptables-legacy -w -t mangle -A PREROUTING -p tcp --dport 7 -j ACCEPT",
        );
        let flags = [&RICH[..], &["--mode=tproxy"]].concat();
        pod.redirect(backend, &flags).expect_success();
        assert_eq!(pod.connect(APP, V4.client, 80), "outbound");
        for _ in 0..2 {
            pod.run(&["--remove"]).expect_success();
            let rules = pod.rules();
            assert!(!rules.to_lowercase().contains("meshwright"), "{backend}: {rules}");
            assert!(!rules.contains("fwmark") && !rules.contains("local default"), "{rules}");
            for other in ["table ip other", "--dport 7 -j OTHER", "--dport 7 -j ACCEPT"] {
                assert!(rules.contains(other), "{backend}: {other} is gone: {rules}");
            }
            assert_eq!(pod.connect(APP, V4.client, 80), "client");
            assert_eq!(pod.connect_from_client(V4.pod, 80), "app");
        }
    }
}

#[test]
fn the_tool_is_chosen_at_run_time() {
    let pod = Pod::new(MESHED);
    let log = pod.redirect("auto", &[]).expect_success();
    assert!(log.contains("\"tool\":\"nft\""), "{log}");
    assert_eq!(pod.connect(APP, V4.client, 80), "outbound");
    let log = pod.redirect("iptables", &[]).expect_success();
    assert!(log.contains("\"tool\":\"iptables-nft\""), "{log}");
    let log = pod.redirect("legacy", &[]).expect_success();
    assert!(log.contains("\"tool\":\"iptables-legacy\""), "where there is no other: {log}");
}

#[test]
fn without_net_admin_it_says_so() {
    let pod = Pod::new(MESHED);
    let Run { success, stderr, .. } = pod.redirect_without_net_admin();
    assert!(!success);
    assert!(stderr.contains("lacks the capability NET_ADMIN"), "{stderr}");
}

#[test]
fn without_ipv6_only_ipv4_is_redirected() {
    for backend in BACKENDS {
        let pod = Pod::new(Kind { ipv6: false, ..MESHED });
        pod.redirect(backend, &["--mode=redirect"]).expect_success();
        assert_eq!(pod.connect(APP, V4.client, 80), "outbound");
        let rules = pod.shell("nft list tables; ip6tables-nft-save; ip6tables-legacy-save");
        assert!(!rules.contains("ip6 meshwright") && !rules.contains("MESHWRIGHT"), "{rules}");
    }
}

#[test]
fn a_dry_run_changes_nothing() {
    let pod = Pod::new(MESHED);
    let dry_run = pod.run(&["--dry-run"]);
    assert!(dry_run.stdout.contains("table ip meshwright"), "{}", dry_run.stdout);
    assert!(!pod.rules().contains("meshwright"));
}
