//! The proof at the end, and waiting for somebody else's rules.

use std::io::{BufRead, BufReader};

use crate::{
    BACKENDS,
    pod::{APP, BARE, MESHED, PROXY, Pod, V4, V6},
};

#[test]
fn proves_both_families_and_dns() {
    for backend in BACKENDS {
        let pod = Pod::new(BARE);
        let log = pod.redirect(backend, &["--dns=all"]).expect_success();
        for at in [&V4, &V6] {
            for what in ["an outbound", "a DNS connection", "a DNS question"] {
                let family = if at.pod == V4.pod { "IPv4" } else { "IPv6" };
                let proven = log.lines().any(|line| {
                    line.contains(what) && line.contains(family) && line.contains(at.nobody)
                });
                assert!(proven, "{what} over {family}: {log}");
            }
        }
    }
}

/// Nothing of ours is captured, or no way leads out: there is a connection that always is.
#[test]
fn raises_no_false_alarm() {
    for flags in [
        &["--outbound-cidrs=", "--inbound-ports="][..],
        &["--outbound-uids=1000"],
        &["--exclude-interfaces=eth0"],
        &["--exclude-outbound-cidrs=0.0.0.0/0,::/0"],
        &["--dns=all", "--exclude-outbound-ports=53"],
        &["--mode=tproxy"],
    ] {
        let pod = Pod::new(BARE);
        pod.redirect("auto", flags).expect_success();
    }
    let pod = Pod::new(BARE);
    pod.shell("ip route delete default; ip -6 route delete default");
    let log = pod.redirect("auto", &[]).expect_success();
    assert!(log.contains("127.0.0.6:15002") && log.contains("[::6]:15002"), "{log}");
    let log = Pod::new(MESHED).redirect("auto", &[]).expect_success();
    assert!(log.contains("the port is taken"), "a proxy listens: {log}");
}

/// Breaks the redirection with `rules` for nft, and returns the complaint.
fn complaint(rules: &str) -> String {
    let pod = Pod::new(BARE);
    pod.shell(&format!("echo '{rules}' | nft -f -"));
    let complaint = pod.redirect("nftables", &[]).expect_failure();
    pod.redirect("nftables", &["--no-probe"]).expect_success();
    complaint
}

#[test]
fn says_who_drops_redirected_packets() {
    let complaint = complaint(
        "table inet guard { chain out { type filter hook output priority 10; \
         tcp dport 15001 drop; }; chain idle { type nat hook output priority -150; }; }",
    );
    for part in [
        "an outbound IPv4 connection to 192.0.2.1:65479 must come to port 15001",
        "nobody answered within 1 s",
        "table inet guard, chain out",
        "--no-probe",
    ] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
    assert!(!complaint.contains("chain idle"), "it does nothing: {complaint}");
}

#[test]
fn says_who_redirects_first() {
    let complaint = complaint(
        "table ip6 mine { chain nat { type nat hook output priority -150; \
         tcp dport 65479 redirect to :80; }; }",
    );
    for part in
        ["an outbound IPv6 connection", "somebody else took it", "table ip6 mine, chain nat"]
    {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

#[test]
fn says_that_tracking_is_off() {
    let complaint = complaint(
        "table ip quick { chain raw { type filter hook output priority -300; notrack; }; }",
    );
    for part in ["an outbound IPv4 connection", "switch off connection tracking"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

/// What the init container does where the CNI plugin redirects.
#[test]
fn a_check_waits_for_the_rules() {
    for uid in [PROXY, APP] {
        let pod = Pod::new(BARE);
        let mut check = pod.start_as(uid, &["--check", "--mode=tproxy"]);
        // It listens as soon as it waits.
        let listens = "until ss -Hltn sport = :15001 | grep -q .; do sleep 0.02; done";
        pod.shell(listens);
        assert!(check.try_wait().unwrap().is_none(), "nothing redirects yet");
        pod.redirect("auto", &["--no-probe", "--outbound-cidrs=", "--dns=all"]).expect_success();
        let output = check.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && log.contains("traffic is redirected"), "{log}");
    }
}

#[test]
fn a_check_gives_up() {
    let pod = Pod::new(BARE);
    let begun = std::time::Instant::now();
    let mut check = pod.start_as(PROXY, &["--check", "--check-timeout=1"]);
    let lines = BufReader::new(check.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.collect();
    assert!(!check.wait().unwrap().success());
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1), "{said:?}");
    let said = said.join("\n");
    for part in [
        "not redirected after 1 s",
        "it was refused",
        "CNI plugin",
        "DaemonSet meshwright-cni",
        "kubectl logs",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// With a proxy there already, its answer is enough.
#[test]
fn a_check_beside_a_proxy() {
    let pod = Pod::new(MESHED);
    pod.redirect("auto", &[]).expect_success();
    pod.run(&["--check", "--check-timeout=5"]).expect_success();
}
