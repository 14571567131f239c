//! The agent's real binary with a real Envoy, against a control plane that is the real CA and a
//! minimal ADS. Each test has a network namespace of its own, because the agent's ports are the same
//! everywhere. Needs root, and Envoy's path in the environment variable MESHWRIGHT_ENVOY.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this is test code, also what stands outside of test functions"
)]

#[path = "support/ads.rs"]
mod ads;
#[path = "envoy_agent/control_plane.rs"]
mod control_plane;
#[path = "envoy_agent/pod.rs"]
mod pod;

use std::time::{Duration, Instant};

use pod::{Pod, in_own_namespace};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn envoy_accepts_the_bootstrap() {
    let envoy = pod::envoy();
    let more = [
        ("MESHWRIGHT_INTERCEPTION", "TPROXY"),
        ("MESHWRIGHT_NODE_METADATA", r#"{"OWNER":"me"}"#),
        (
            "MESHWRIGHT_STATS",
            r#"{"prefixes":["http."],"suffixes":["_timeout"],"regexps":["a.*b"],
                "buckets":{"istiocustom":[1,10.5]},"bins":{"istiocustom":46082,"server.":1},
                "flushInterval":2500,"evictionInterval":5000,"compression":true}"#,
        ),
        ("MESHWRIGHT_RUNTIME", r#"{"a":"true","b":"5","c":"text"}"#),
    ];
    let gateway = [("MESHWRIGHT_ROLE", "router"), ("POD_IP", "fd00::1")];
    for changes in [&[][..], &gateway, &more] {
        let directory = tempfile::tempdir().unwrap();
        let settings = pod::settings(directory.path(), changes);
        let file = settings.bootstrap_file();
        let text = meshwright::agent::bootstrap::bootstrap(&settings);
        std::fs::write(&file, text.to_string()).unwrap();
        let output = std::process::Command::new(&envoy)
            .args(["--mode", "validate", "-c"])
            .arg(file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn a_pod_from_start_to_end() {
    in_own_namespace("a_pod_from_start_to_end", || async {
        let control_plane = control_plane::start(Duration::ZERO).await;
        let mut pod = Pod::start(&[
            (
                "MESHWRIGHT_APP_PROBES",
                r#"{"/app-health/app/readyz":{"httpGet":{"port":8080,"path":"/up"}}}"#,
            ),
            ("MESHWRIGHT_APP_METRICS", r#"[{"port":8080},{"port":8081}]"#),
        ]);
        pod::application(8080).await;
        let start = Instant::now();
        pod.wait(SOON).await;
        println!("ready after {} ms", start.elapsed().as_millis());

        // Envoy came with this workload's certificate, as the node that it is.
        let seen = control_plane.seen();
        assert_eq!(seen.identity, "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(seen.node, "sidecar~127.0.0.1~cart-1.shop~shop.svc.cluster.local");
        for port in [15020, 15021] {
            assert_eq!(pod.get(port, "/healthz/ready").await.0, 200, "{port}");
        }
        assert_eq!(pod.get(15020, "/app-health/app/readyz").await, (200, "up".to_owned()));
        let (status, metrics) = pod.get(15020, "/stats/prometheus").await;
        assert_eq!(status, 200);
        for name in [
            "envoy_server_live",
            "app_requests_total 1",
            "meshwright_agent_certificates_total 1",
            "meshwright_agent_scrape_failures_total{target=\"8081:/metrics\"} 1",
        ] {
            assert!(metrics.contains(name), "{name} in:\n{metrics}");
        }
        assert_eq!(pod.get(15090, "/stats/prometheus").await.0, 200);

        let (resident, own) = pod.memory();
        println!("the agent's resident memory: {resident} kB, of these its own {own} kB");
        assert!(own < 4096, "{own} kB besides its code");

        let start = Instant::now();
        pod.terminate();
        let (success, stderr) = pod.exited(SOON).await;
        assert!(success, "{stderr}");
        println!("ended after {} ms", start.elapsed().as_millis());
    });
}

#[test]
fn answers_the_pods_dns() {
    in_own_namespace("answers_the_pods_dns", || async {
        let control_plane = control_plane::start(Duration::ZERO).await;
        let pod = Pod::start(&[("MESHWRIGHT_DNS_CAPTURE", "true")]);
        pod.wait(SOON).await;
        for to in ["127.0.0.1:15053", "[::1]:15053"] {
            let start = Instant::now();
            while !pod::resolve(to, "service-999.shop.svc.cluster.local.")
                .await
                .contains("10.96.0.1")
            {
                assert!(start.elapsed() < SOON, "the agent does not learn of the host");
            }
        }
        assert_eq!(control_plane.seen().streams, 2, "Envoy's and the agent's");
        let metrics = pod.get(15020, "/stats/prometheus").await.1;
        assert!(metrics.contains("meshwright_agent_dns_requests_total"), "{metrics}");
        let (resident, own) = pod.memory();
        println!("with DNS and 1,000 hosts: {resident} kB, of these its own {own} kB");
        // This build is not optimised; the cluster scenario `memory` judges the one that runs in pods.
        assert!(own < 4608, "{own} kB besides its code");
    });
}

#[test]
fn ends_with_its_applications() {
    in_own_namespace("ends_with_its_applications", || async {
        let _control_plane = control_plane::start(Duration::ZERO).await;
        let mut pod = Pod::start(&[("MESHWRIGHT_WATCH_COMPLETION", "true"), ("POD_NAME", "job-1")]);
        let (success, stderr) = pod.exited(SOON).await;
        assert!(success, "{stderr}");
        assert!(stderr.contains("the pod's applications have finished"), "{stderr}");
    });
}

#[test]
fn is_ready_only_when_its_configuration_has_come() {
    in_own_namespace("is_ready_only_when_its_configuration_has_come", || async {
        let late = Duration::from_secs(2);
        let _control_plane = control_plane::start(late).await;
        let pod = Pod::start(&[]);
        let start = Instant::now();
        pod.wait(SOON).await;
        assert!(start.elapsed() >= late, "{:?}", start.elapsed());
    });
}

#[test]
fn starts_while_the_control_plane_is_away() {
    in_own_namespace("starts_while_the_control_plane_is_away", || async {
        let authority = control_plane::authority();
        let pod = Pod::with_roots(&[], authority.root_pem());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(pod.get(15021, "/healthz/ready").await.0, 503);
        let start = Instant::now();
        let _control_plane = control_plane::start_with(authority, Duration::ZERO).await;
        pod.wait(SOON).await;
        println!("ready {} ms after the control plane", start.elapsed().as_millis());
    });
}

#[test]
fn renews_without_dropping_a_connection() {
    in_own_namespace("renews_without_dropping_a_connection", || async {
        let control_plane = control_plane::start(Duration::ZERO).await;
        let pod = Pod::start(&[("MESHWRIGHT_CERTIFICATE_SECONDS", "4")]);
        pod.wait(SOON).await;
        let mut connection = control_plane.connect_to_workload().await;
        let first = connection.certificate();
        let end = Instant::now() + Duration::from_secs(7);
        while Instant::now() < end {
            connection.request().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let later = control_plane.connect_to_workload().await;
        assert_ne!(later.certificate(), first, "new connections get the new certificate");
        assert_eq!(control_plane.seen().streams, 1, "Envoy kept its stream");
        let metrics = pod.get(15020, "/stats/prometheus").await.1;
        let issued = metrics
            .lines()
            .find_map(|line| line.strip_prefix("meshwright_agent_certificates_total "));
        assert!(issued.unwrap().parse::<u32>().unwrap() >= 3, "{issued:?}");
    });
}

#[test]
fn keeps_its_certificate_while_the_ca_is_away() {
    in_own_namespace("keeps_its_certificate_while_the_ca_is_away", || async {
        let control_plane = control_plane::start(Duration::ZERO).await;
        let pod = Pod::start(&[("MESHWRIGHT_CERTIFICATE_SECONDS", "20")]);
        pod.wait(SOON).await;
        control_plane.refuse_certificates();
        // Past half life.
        tokio::time::sleep(Duration::from_secs(13)).await;
        control_plane.connect_to_workload().await.request().await;
        let metrics = pod.get(15020, "/stats/prometheus").await.1;
        assert!(!metrics.contains("meshwright_agent_certificate_failures_total 0"), "{metrics}");
        assert_eq!(pod.get(15021, "/healthz/ready").await.0, 200);
    });
}

#[test]
fn fails_if_envoy_dies() {
    in_own_namespace("fails_if_envoy_dies", || async {
        let _control_plane = control_plane::start(Duration::ZERO).await;
        let mut pod = Pod::start(&[]);
        pod.wait(SOON).await;
        pod.kill_envoy();
        let (success, stderr) = pod.exited(SOON).await;
        assert!(!success);
        assert!(stderr.contains("Envoy ended by itself: signal: 9"), "{stderr}");
    });
}

#[test]
fn survives_being_killed_during_its_start() {
    in_own_namespace("survives_being_killed_during_its_start", || async {
        let control_plane = control_plane::start(Duration::from_millis(500)).await;
        let admin = || tokio::net::TcpStream::connect(("127.0.0.1", 15000));
        let mut pod = Pod::start(&[]);
        // Its socket is left.
        pod.kill_when(async |directory| directory.join("sds.sock").exists()).await;
        pod.restart(2 * SOON).await;
        drop(pod);

        let mut pod = Pod::start(&[]);
        // Envoy is left too, as in a pod that shares its processes, and answers in our place.
        pod.kill_when(async |_| admin().await.is_ok()).await;
        let left = pod.envoys();
        assert_eq!(left.len(), 1);
        let (ready, said) = pod.ask(Duration::from_secs(1)).await;
        assert!(!ready && said.contains("the agent does not run"), "{said}");
        pod.restart(2 * SOON).await;
        let now = pod.envoys();
        assert_eq!(now.len(), 1);
        assert_ne!(now, left);
        control_plane.connect_to_workload().await.request().await;
    });
}

#[test]
fn a_classic_sidecar_serves_on_until_the_application_has_ended() {
    in_own_namespace("a_classic_sidecar_serves_on_until_the_application_has_ended", || async {
        let control_plane = control_plane::start(Duration::ZERO).await;
        let (mut application, stop) = pod::application_with_hook(8080).await;
        let mut pod = Pod::start(&[
            ("MESHWRIGHT_SIDECAR", "classic"),
            ("MESHWRIGHT_MIN_DRAIN_SECONDS", "1"),
            ("MESHWRIGHT_DRAIN_SECONDS", "60"),
            (
                "MESHWRIGHT_APP_PROBES",
                r#"{"/app-lifecycle/app/prestopz":{"httpGet":{"port":8080,"path":"/stop"}}}"#,
            ),
        ]);
        pod.wait(SOON).await;
        pod.terminate();
        // The kubelet runs the application's handler while the proxy has its signal already. It lasts
        // longer than the proxy would stay for nobody's sake.
        let (handler, ()) = tokio::join!(pod.get(15020, "/app-lifecycle/app/prestopz"), async {
            application.recv().await.unwrap();
            tokio::time::sleep(Duration::from_secs(2)).await;
            control_plane.connect_to_workload().await.request().await;
            stop.notify_one();
        });
        assert_eq!(handler, (200, "stopped".to_owned()));
        let (success, stderr) = pod.exited(SOON).await;
        assert!(success, "{stderr}");
    });
}

#[test]
fn drains_before_it_ends() {
    in_own_namespace("drains_before_it_ends", || async {
        let control_plane = control_plane::start(Duration::ZERO).await;
        let mut pod = Pod::start(&[("MESHWRIGHT_DRAIN_SECONDS", "10")]);
        pod.wait(SOON).await;
        let mut connection = control_plane.connect_to_workload().await;
        connection.request().await;
        let start = Instant::now();
        pod.terminate();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(pod.get(15021, "/healthz/ready").await.0, 503, "out of service at once");
        let answer = connection.request().await;
        assert!(answer.contains("connection: close"), "asked to leave: {answer}");
        drop(connection);
        let (success, stderr) = pod.exited(SOON).await;
        assert!(success, "{stderr}");
        let took = start.elapsed();
        assert!(took > Duration::from_millis(500) && took < Duration::from_secs(8), "{took:?}");
    });
}
