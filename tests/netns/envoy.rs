//! A real Envoy, with the configuration that the control plane makes for it.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use crate::{
    bootstrap::{bootstrap, envoy},
    pod::{BARE, PROXY, Pod, V4, V6},
    support,
};

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The client's address, through Envoy, to the application and back.
#[test]
fn applications_behind_transparent_envoys_see_their_clients() {
    let case = support::cases().into_iter().find(|case| case.name == "inbound-tproxy").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("envoy.json");
    fs::write(&config, bootstrap(&case.proxies()[0]).to_string()).unwrap();
    for backend in crate::BACKENDS {
        let pod = Pod::new(BARE);
        pod.redirect(backend, &["--mode=tproxy"]).expect_success();
        let child = Command::new("/usr/bin/nsenter")
            .arg(format!("--net=/run/netns/{}", pod.inside))
            .args(["--setuid=0".to_owned(), format!("--setgid={PROXY}"), "--".to_owned()])
            .arg(envoy())
            .args(["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error", "-c"])
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let _envoy = Running(child);
        pod.shell("until ss -Hltn sport = :15006 | grep -q '::'; do sleep 0.05; done");
        for at in [&V4, &V6] {
            for client in [at.client, at.other] {
                let seen = pod.seen_from_client(client, at.pod, 80);
                assert_eq!(seen, format!("app {client}"), "{backend}");
            }
            let own = pod.seen_from_inside(PROXY, at.pod, 80);
            assert_eq!(own, format!("app {}", at.pod), "{backend}: a client of its own pod");
        }
    }
}
