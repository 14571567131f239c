//! The tools take whatever plan there is.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use meshwright::redirect::{Family, plan_of_args, render, rules};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, TestRunner},
};

use crate::pod::{BARE, Pod};

/// How many plans.
const PLANS: usize = 300;

/// Each option, and values that it may have.
const OPTIONS: &[(&str, &[&str])] = &[
    ("mode", &["redirect", "tproxy"]),
    ("proxy-port", &["15001", "1"]),
    ("inbound-ports", &["*", "", "80,8080,65535"]),
    ("exclude-inbound-ports", &["", "1,2,3"]),
    ("outbound-cidrs", &["*", "", "10.0.0.0/8,fd00::/8,127.1.2.3", "0.0.0.0/0", "::/0"]),
    ("exclude-outbound-cidrs", &["", "10.9.0.0/16,fd09::/16", "::1,::ffff:1.2.3.4"]),
    ("outbound-ports", &["", "53,3306"]),
    ("exclude-outbound-ports", &["", "3306", "53"]),
    ("interfaces", &["*", "", "eth0,net+", "lo"]),
    ("exclude-interfaces", &["", "net1,a-b_c.d"]),
    ("reroute-interfaces", &["", "tap0,tap+"]),
    ("outbound-uids", &["*", "", "0,4294967294"]),
    ("exclude-outbound-uids", &["", "7,8"]),
    ("outbound-gids", &["*", "", "100"]),
    ("exclude-outbound-gids", &["", "9"]),
    ("dns", &["off", "all"]),
];

fn flags() -> impl Strategy<Value = Vec<String>> {
    let values = OPTIONS.iter().map(|(name, values)| {
        let name = *name;
        proptest::sample::select(*values).prop_map(move |value| format!("--{name}={value}"))
    });
    (values.collect::<Vec<_>>(), any::<bool>()).prop_map(|(mut flags, drop_invalid)| {
        flags.extend(drop_invalid.then(|| "--drop-invalid".to_owned()));
        flags
    })
}

/// Every plan's text is taken, many at once as each run of a tool costs time.
#[test]
fn tools_take_every_plan() {
    let pod = Pod::new(BARE);
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let mut texts = [String::new(), String::new(), String::new()];
    for _ in 0..PLANS {
        let flags = flags().new_tree(&mut runner).unwrap().current();
        let (plan, _) = plan_of_args(&flags).unwrap();
        let both = Family::BOTH.map(|family| (family, rules(&plan, family)));
        writeln!(texts[0], "# {}\n{}", flags.join(" "), render::nftables(&both)).unwrap();
        for ((_, rules), text) in both.iter().zip(&mut texts[1..]) {
            let restored = render::iptables(rules, &render::Saved::default());
            writeln!(text, "# {}\n{restored}", flags.join(" ")).unwrap();
        }
    }
    for (program, args, text) in [
        ("nft", &["-c", "-f", "-"][..], &texts[0]),
        ("iptables-nft-restore", &["--test", "--noflush"], &texts[1]),
        ("ip6tables-nft-restore", &["--test", "--noflush"], &texts[2]),
        ("iptables-legacy-restore", &["--test", "--noflush", "--wait"], &texts[1]),
        ("ip6tables-legacy-restore", &["--test", "--noflush", "--wait"], &texts[2]),
    ] {
        takes(&pod, program, args, text);
    }
}

fn takes(pod: &Pod, program: &str, args: &[&str], text: &str) {
    let mut child = Command::new("/usr/bin/nsenter")
        .arg(format!("--net=/run/netns/{}", pod.inside))
        .arg(program)
        .args(args)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let written = child.stdin.take().unwrap().write_all(text.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && written.is_ok(), "{program}: {said}");
}
