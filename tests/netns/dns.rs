//! DNS questions to the agent.

use crate::{
    everywhere,
    pod::{APP, MESHED, PROXY, Pod},
};

fn with_dns() -> Pod {
    Pod::new(MESHED).with_dns()
}

#[test]
fn all_questions_of_the_application_go_to_the_agent() {
    everywhere(with_dns, &["--dns=all"], |pod, at| {
        assert_eq!(pod.ask(APP, at.client), "agent");
        assert_eq!(pod.connect(APP, at.other, 53), "agent", "over TCP");
        assert_eq!(pod.ask(APP, at.loopback), "agent", "a server in the pod");
        assert_eq!(pod.connect(APP, at.loopback, 53), "agent");
        assert_eq!(pod.connect(APP, at.client, 80), "outbound");
        assert_eq!(pod.connect(APP, at.pod, 80), "app");
        assert_eq!(pod.connect(PROXY, at.pod, 80), "inbound");
    });
}

#[test]
fn the_agents_own_questions_reach_the_servers() {
    everywhere(with_dns, &["--dns=all"], |pod, at| {
        assert_eq!(pod.ask(PROXY, at.client), "server");
        assert_eq!(pod.connect(PROXY, at.client, 53), "server", "over TCP");
    });
}

/// Without zones the second question would be taken for the first one's connection, and sent to the
/// agent that asks it.
#[test]
fn a_question_of_the_agent_is_not_taken_for_the_applications() {
    everywhere(with_dns, &["--dns=all"], |pod, at| {
        assert_eq!(pod.ask_from(APP, 5555, at.client), "agent");
        assert_eq!(pod.ask_from(PROXY, 5555, at.client), "server");
        assert_eq!(pod.ask_from(APP, 5555, at.client), "agent");
    });
}

#[test]
fn questions_for_the_resolvers_alone() {
    let with_resolvers = || {
        let pod = with_dns();
        let folder = format!("/etc/netns/{}", pod.inside);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(
            format!("{folder}/resolv.conf"),
            "nameserver 10.77.0.2\nnameserver fd77::2\nsearch shop.svc.cluster.local\n",
        )
        .unwrap();
        pod
    };
    for backend in crate::BACKENDS {
        let pod = with_resolvers();
        // Only `ip netns exec` shows a namespace its own resolv.conf.
        let tool = if backend == "nftables" { "nftables" } else { "iptables" };
        let run = std::process::Command::new("ip")
            .args(["netns", "exec", &pod.inside, env!("CARGO_BIN_EXE_meshwright"), "redirect"])
            .args(["--dns=resolvers", "--backend", tool])
            .output()
            .unwrap();
        drop(std::fs::remove_dir_all(format!("/etc/netns/{}", pod.inside)));
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        for at in [&crate::pod::V4, &crate::pod::V6] {
            assert_eq!(pod.ask(APP, at.client), "agent");
            assert_eq!(pod.connect(APP, at.client, 53), "agent");
            assert_eq!(pod.ask(APP, at.other), "server", "not in resolv.conf");
            assert_eq!(pod.connect(APP, at.other, 53), "outbound", "TCP like other TCP");
            assert_eq!(pod.ask(PROXY, at.client), "server");
        }
    }
}

#[test]
fn exclusions_hold_for_questions() {
    let flags = ["--dns=all", "--exclude-outbound-uids=7"];
    everywhere(with_dns, &flags, |pod, at| {
        assert_eq!(pod.ask(7, at.client), "server");
        assert_eq!(pod.connect(7, at.client, 53), "server");
        assert_eq!(pod.ask(APP, at.client), "agent");
    });
    everywhere(with_dns, &["--dns=all", "--exclude-outbound-ports=53"], |pod, at| {
        assert_eq!(pod.ask(APP, at.client), "server");
        assert_eq!(pod.connect(APP, at.client, 53), "server");
    });
    everywhere(with_dns, &["--dns=off"], |pod, at| {
        assert_eq!(pod.ask(APP, at.client), "server");
        assert_eq!(pod.connect(APP, at.client, 53), "outbound", "TCP like other TCP");
    });
}
