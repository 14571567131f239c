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

#[path = "netns/binaries.rs"]
mod binaries;
#[path = "support/bootstrap.rs"]
mod bootstrap;
#[path = "netns/broken.rs"]
mod broken;
#[path = "netns/dns.rs"]
mod dns;
#[path = "netns/envoy.rs"]
mod envoy;
#[path = "netns/generated.rs"]
mod generated;
#[path = "netns/inside.rs"]
mod inside;
#[path = "netns/options.rs"]
mod options;
#[path = "netns/pod.rs"]
mod pod;
#[path = "netns/probe.rs"]
mod probe;
#[path = "netns/state.rs"]
mod state;
#[path = "support/envoy.rs"]
mod support;
#[path = "netns/tproxy.rs"]
mod tproxy;
#[path = "netns/wiring.rs"]
mod wiring;

use pod::{Addresses, Pod};

const BACKENDS: [&str; 3] = ["nftables", "iptables", "legacy"];

/// Runs `check` for each tool, over IPv4 and over IPv6, in fresh namespaces. Tools run at the same
/// time, as most of it is waiting; a panic's message names the thread, which is the tool.
fn everywhere(
    new: impl Fn() -> Pod + Sync,
    flags: &[&str],
    check: impl Fn(&Pod, &Addresses) + Sync,
) {
    std::thread::scope(|scope| {
        for backend in BACKENDS {
            let check = || {
                let pod = new();
                pod.redirect(backend, flags).expect_success();
                for addresses in [&pod::V4, &pod::V6] {
                    check(&pod, addresses);
                }
            };
            let named = std::thread::Builder::new().name(backend.to_owned());
            named.spawn_scoped(scope, check).unwrap();
        }
    });
}
