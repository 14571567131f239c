//! Identities: nobody can claim one, and certificates are renewed under connections that stay.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    client::Outcome,
    collector::Collector,
    load,
    manifest::{self, Port, Workload},
    testbed::{self, MESHED},
};
use crate::cluster::{Cluster, wait_for};

const NAMESPACE: &str = "renewal-tests";
const HEADER: &str = "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/x/sa/forged";

/// A caller that sends the header with which the server's proxy tells of certificates is not
/// believed, whether it has a certificate of its own or none.
pub fn forged_identity_is_dropped(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    testbed::delete(cluster, MESHED, "peerauthentication", "default")?;
    let url = format!("http://named.{MESHED}/");
    let plain = testbed::plain_client(cluster);
    plain.until("plaintext into the mesh", &url, &[], Outcome::ok)?;
    let mut collector = Collector::default();
    for (who, client) in [("a plain pod", plain), ("a meshed pod", testbed::meshed_client(cluster))]
    {
        collector.case(who, || {
            let outcome = client.call(&url, &["--header", HEADER])?.answered()?;
            let shown = outcome.caller_certificate().unwrap_or("nothing");
            ensure!(!shown.contains("forged"), "the server was shown {shown}");
            Ok(())
        });
    }
    collector.verdict()
}

/// With certificates of one minute, connections opened before live on through renewals on both
/// sides, and past the end of the certificates that they began with.
pub fn renewal_drops_nothing(cluster: &Cluster) -> Result<()> {
    let lifetime = Lifetime::shorten(cluster, "1m")?;
    start(cluster)?;
    let server_ip = testbed::pod_ip(cluster, NAMESPACE, "server")?;
    let first = PeerCertificate::of(cluster, &server_ip)?;
    let second = first.renewed(cluster, &server_ip)?;
    second.renewed(cluster, &server_ip)?;
    let mut collector = Collector::default();
    for name in ["load-tcp", "load-grpc"] {
        collector.case(name, || {
            let summary = load::stop(cluster, NAMESPACE, name)?.without_failures()?;
            let connections = summary.connections();
            ensure!(connections == 1, "{connections} connections, so one was dropped");
            Ok(())
        });
    }
    collector.verdict()?;
    lifetime.restore()?;
    testbed::delete_namespace(cluster, NAMESPACE)
}

/// Pods whose certificates are short-lived: what is injected follows the MeshInstallation a moment
/// later, so the server is restarted until it is so.
fn start(cluster: &Cluster) -> Result<()> {
    let image = cluster.testapp_image();
    let server = Workload::server(NAMESPACE, "server", "v1", &["--tcp", "9000", "--grpc", "50051"])
        .ready_on(9000);
    let ports = [Port::named("tcp", 9000, 9000), Port::named("grpc", 50051, 50051)];
    let mut objects = vec![
        manifest::namespace(NAMESPACE, true),
        manifest::service(NAMESPACE, "server", "server", &ports),
    ];
    objects.extend(server.objects(image));
    manifest::apply(cluster, &objects)?;
    wait_for("a certificate of one minute", Duration::from_mins(2), || {
        manifest::rolled_out(cluster, NAMESPACE, &["deploy/server"])?;
        let address = testbed::pod_ip(cluster, NAMESPACE, "server")?;
        if PeerCertificate::of(cluster, &address)?.ends_within(Duration::from_mins(5))? {
            return Ok(Some(()));
        }
        cluster.kubectl(&["rollout", "restart", "--namespace", NAMESPACE, "deploy/server"])?;
        bail!("spec.proxy.certificateTtl does not take effect: the certificate is long-lived")
    })?;
    let mut objects = Vec::new();
    for (name, url) in [("load-tcp", "tcp://server:9000"), ("load-grpc", "grpc://server:50051")] {
        objects.extend(load::deployment(NAMESPACE, name, url, &["--rate", "20"]).objects(image));
    }
    manifest::apply(cluster, &objects)?;
    manifest::rolled_out(cluster, NAMESPACE, &["deploy/load-tcp", "deploy/load-grpc"])
}

/// The lifetime of certificates as it was, to be put back.
struct Lifetime<'a> {
    cluster: &'a Cluster,
    before: Value,
}

impl<'a> Lifetime<'a> {
    fn shorten(cluster: &'a Cluster, ttl: &str) -> Result<Self> {
        let installation = cluster.kubectl_json(&["get", "meshinstallation", "default"])?;
        let before = installation["spec"]["proxy"]["certificateTtl"].clone();
        let lifetime = Self { cluster, before };
        lifetime.set(&json!(ttl))?;
        Ok(lifetime)
    }

    fn set(&self, ttl: &Value) -> Result<()> {
        let patch = json!({"spec": {"proxy": {"certificateTtl": ttl}}}).to_string();
        let arguments = ["patch", "meshinstallation", "default", "--type=merge", "--patch", &patch];
        self.cluster.kubectl(&arguments).map(drop)
    }

    fn restore(&self) -> Result<()> {
        self.set(&self.before)
    }
}

impl Drop for Lifetime<'_> {
    fn drop(&mut self) {
        // Also where the test failed: the others want certificates that live. That error counts.
        let _ = self.restore();
    }
}

/// The certificate that a meshed pod shows, as `openssl s_client` prints it.
#[derive(Debug)]
struct PeerCertificate {
    pem: String,
}

impl PeerCertificate {
    fn of(cluster: &Cluster, pod_ip: &str) -> Result<Self> {
        let output = cluster
            .command("openssl")
            .args(["s_client", "-showcerts", "-connect", &format!("{pod_ip}:9000")])
            .args(["-servername", &format!("outbound_.9000_._.server.{NAMESPACE}.mesh.internal")])
            .stdin(Stdio::null())
            .output()
            .context("run openssl, which this test needs")?;
        // The proxy refuses a client without a certificate, but not before it has shown its own.
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        first_certificate(&printed)
            .map(|pem| Self { pem: pem.to_owned() })
            .with_context(|| format!("{pod_ip}:9000 shows no certificate"))
    }

    /// Waits until the pod shows another.
    fn renewed(&self, cluster: &Cluster, pod_ip: &str) -> Result<Self> {
        wait_for("a renewed certificate", Duration::from_mins(1), || {
            let now = Self::of(cluster, pod_ip)?;
            Ok((now.pem != self.pem).then_some(now))
        })
    }

    fn ends_within(&self, time: Duration) -> Result<bool> {
        let mut openssl = Command::new("openssl")
            .args(["x509", "-noout", "-checkend", &time.as_secs().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("run openssl, which this test needs")?;
        let mut stdin = openssl.stdin.take().context("openssl's standard input")?;
        stdin.write_all(self.pem.as_bytes()).context("give openssl the certificate")?;
        drop(stdin);
        Ok(!openssl.wait().context("wait for openssl")?.success())
    }
}

fn first_certificate(text: &str) -> Option<&str> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let begin = text.find("-----BEGIN CERTIFICATE-----")?;
    let end = begin + text[begin..].find(END)? + END.len();
    Some(&text[begin..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_leaf() {
        let text = "CONNECTED\n-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n 1 s:\n\
                    -----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n";
        assert_eq!(
            first_certificate(text),
            Some("-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n")
        );
        assert_eq!(first_certificate("CONNECTED\n"), None);
    }
}
