//! Requests by the test application's client: from a pod, inside or outside the mesh, or from the
//! machine, which stands for the world in front of the gateway.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, wait_for};

/// Where the test application is in its image.
pub const PROGRAM: &str = "/usr/local/bin/testapp";

/// How long a change of configuration may take to be in force everywhere.
pub const PROPAGATION: Duration = Duration::from_secs(30);

/// Somewhere that requests come from.
#[derive(Clone, Copy)]
pub struct Client<'a> {
    cluster: &'a Cluster,
    origin: Origin<'a>,
}

#[derive(Clone, Copy)]
enum Origin<'a> {
    Machine,
    Pod { namespace: &'a str, name: &'a str },
}

impl<'a> Client<'a> {
    /// The machine itself, in the node's network.
    pub fn machine(cluster: &'a Cluster) -> Self {
        Self { cluster, origin: Origin::Machine }
    }

    /// The container `app` of a pod, named as kubectl does: `deploy/client`.
    pub fn pod(cluster: &'a Cluster, namespace: &'a str, name: &'a str) -> Self {
        Self { cluster, origin: Origin::Pod { namespace, name } }
    }

    /// Makes many requests; failed ones are part of the summary.
    pub fn run(&self, url: &str, options: &[&str]) -> Result<Summary> {
        let arguments = [&["client", "--url", url], options].concat();
        Summary::parse(&self.testapp(&arguments)?)
    }

    /// Makes one request; a failed one is an outcome too.
    pub fn call(&self, url: &str, options: &[&str]) -> Result<Outcome> {
        let arguments = [&["client", "--url", url, "--output", "full"], options].concat();
        Outcome::parse(&self.testapp(&arguments)?)
    }

    /// Makes one request again and again until `accept` says that its outcome is the right one.
    pub fn until(
        &self,
        what: &str,
        url: &str,
        options: &[&str],
        accept: impl Fn(&Outcome) -> bool,
    ) -> Result<Outcome> {
        wait_for(what, PROPAGATION, || {
            let outcome = self.call(url, options)?;
            ensure!(accept(&outcome), "{url}: {outcome}");
            Ok(Some(outcome))
        })
    }

    fn testapp(&self, arguments: &[&str]) -> Result<String> {
        match self.origin {
            Origin::Pod { namespace, name } => {
                let exec = ["exec", "--namespace", namespace, name, "--container", "app", "--"];
                self.cluster.kubectl(&[&exec, [PROGRAM].as_slice(), arguments].concat())
            }
            Origin::Machine => self.on_machine(arguments),
        }
    }

    fn on_machine(&self, arguments: &[&str]) -> Result<String> {
        let program = self.cluster.testapp_binary().to_string_lossy().into_owned();
        let output = self
            .cluster
            .command(&program)
            .args(arguments)
            .output()
            .with_context(|| format!("run {program}"))?;
        if !output.status.success() {
            bail!("testapp client: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).context("read what testapp printed")
    }
}

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Outcome(Value);

impl Outcome {
    pub fn parse(text: &str) -> Result<Self> {
        serde_json::from_str(text).map(Self).with_context(|| format!("no outcome in `{text}`"))
    }

    pub fn ok(&self) -> bool {
        self.0["ok"] == true
    }

    /// An HTTP status, a gRPC status name, `ok` of line protocols, `error` without an answer.
    pub fn status(&self) -> &str {
        self.0["status"].as_str().unwrap_or_default()
    }

    /// The server's answer.
    pub fn answer(&self) -> &Value {
        &self.0["answer"]
    }

    /// A field of the server's answer about itself.
    pub fn field(&self, name: &str) -> &str {
        self.answer()[name].as_str().unwrap_or_default()
    }

    /// A header of the request as it reached the server.
    pub fn request_header(&self, name: &str) -> Option<&str> {
        self.answer()["headers"][name].as_str()
    }

    /// The caller as the server's proxy knows it from the certificate.
    pub fn caller_certificate(&self) -> Option<&str> {
        self.request_header("x-forwarded-client-cert")
    }

    pub fn error(&self) -> &str {
        self.0["error"].as_str().or_else(|| self.answer().as_str()).unwrap_or_default()
    }

    /// Itself if it was answered, else an error that says why not.
    pub fn answered(self) -> Result<Self> {
        ensure!(self.ok(), "{self}");
        Ok(self)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.error() {
            "" => write!(f, "status {} by {}", self.status(), self.field("pod")),
            error => write!(f, "status {}: {error}", self.status()),
        }
    }
}

/// What came of many requests.
#[derive(Clone, Debug)]
pub struct Summary(Value);

impl Summary {
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text).with_context(|| format!("no summary in `{text}`"))?;
        Self::from_value(value)
    }

    pub fn from_value(value: Value) -> Result<Self> {
        ensure!(value["requests"].is_u64(), "no summary in `{value}`");
        Ok(Self(value))
    }

    pub fn requests(&self) -> u64 {
        self.0["requests"].as_u64().unwrap_or_default()
    }

    pub fn failed(&self) -> u64 {
        self.0["failed"].as_u64().unwrap_or_default()
    }

    /// How many connections the client opened.
    pub fn connections(&self) -> u64 {
        self.0["connections"].as_u64().unwrap_or_default()
    }

    /// Answers by `service/version`.
    pub fn versions(&self) -> BTreeMap<String, u64> {
        self.counts("versions")
    }

    /// The share of all requests that a `service/version` answered, in percent.
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    pub fn percent(&self, version: &str) -> f64 {
        let answered = self.versions().get(version).copied().unwrap_or_default();
        100.0 * answered as f64 / self.requests().max(1) as f64
    }

    /// The slowest of the fastest 99 %, in milliseconds.
    pub fn p99(&self) -> f64 {
        self.0["latency_ms"]["p99"].as_f64().unwrap_or_default()
    }

    /// Refuses a summary with failed requests, with what they said.
    pub fn without_failures(self) -> Result<Self> {
        let (failed, requests) = (self.failed(), self.requests());
        ensure!(failed == 0, "{failed} of {requests} requests failed: {:?}", self.counts("errors"));
        Ok(self)
    }

    fn counts(&self, name: &str) -> BTreeMap<String, u64> {
        let counts = self.0[name].as_object();
        counts
            .into_iter()
            .flatten()
            .map(|(key, count)| (key.clone(), count.as_u64().unwrap_or_default()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_an_outcome() {
        let outcome = Outcome::parse(
            r#"{"url":"http://a","status":"200","ok":true,"answer":{"service":"a","version":"v1",
                "pod":"a-0","headers":{"x-forwarded-client-cert":"URI=spiffe://x"}}}"#,
        )
        .unwrap();
        assert!(outcome.ok());
        assert_eq!(outcome.field("service"), "a");
        assert_eq!(outcome.caller_certificate(), Some("URI=spiffe://x"));
        assert_eq!(outcome.to_string(), "status 200 by a-0");
        assert!(outcome.answered().is_ok());
    }

    #[test]
    fn a_failed_outcome_says_why() {
        for text in [
            r#"{"url":"tcp://a:1","status":"error","ok":false,"error":"connect: refused"}"#,
            r#"{"url":"http://a","status":"error","ok":false,"answer":"connect: refused"}"#,
        ] {
            let error = Outcome::parse(text).unwrap().answered().unwrap_err().to_string();
            assert_eq!(error, "status error: connect: refused");
        }
    }

    #[test]
    fn reads_a_summary() {
        let summary = Summary::parse(
            r#"{"requests":1000,"failed":1,"connections":8,"versions":{"c/v1":897,"c/v2":102},
                "errors":{"503: no healthy upstream":1},"latency_ms":{"p99":4.5}}"#,
        )
        .unwrap();
        assert_eq!(summary.requests(), 1000);
        assert_eq!(summary.connections(), 8);
        assert!((summary.percent("c/v1") - 89.7).abs() < 1e-9);
        assert!(summary.percent("c/v3").abs() < 1e-9);
        assert!((summary.p99() - 4.5).abs() < 1e-9);
        let error = summary.without_failures().unwrap_err().to_string();
        assert!(error.contains("1 of 1000 requests failed"), "{error}");
        assert!(error.contains("no healthy upstream"), "{error}");
    }

    #[test]
    fn what_is_no_summary_is_refused() {
        assert!(Summary::parse("no such host").is_err());
        assert!(Summary::parse("{}").is_err());
    }
}
