//! What is wrong is refused, or said where it stands, and breaks nothing.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{
    client::PROPAGATION,
    collector::Collector,
    manifest,
    testbed::{self, MESHED, SYSTEM},
};
use crate::cluster::{Cluster, wait_for};

/// An invalid MeshInstallation is refused at admission, with the field and the reason.
pub fn invalid_installation_is_refused(cluster: &Cluster) -> Result<()> {
    let gateway = |port: Value| json!({"gateways": [{"name": "edge", "ports": [port]}]});
    let mut collector = Collector::default();
    for (spec, field, reason) in [
        (json!({"controlPlane": {"replicas": 0}}), "spec.controlPlane.replicas", "greater than"),
        (
            gateway(json!({"name": "x", "port": 70000})),
            "spec.gateways[0].ports[0].port",
            "less than",
        ),
        (json!({"proxy": {"logLevel": "loud"}}), "spec.proxy.logLevel", "upported value"),
        (json!({"proxy": {"certificateTtl": "soon"}}), "spec.proxy.certificateTtl", "match"),
        (json!({"proxi": {}}), "spec.proxi", "unknown field"),
    ] {
        collector.case(&format!("{spec}"), || {
            let refusal = dry_run(cluster, &spec)?;
            ensure!(refusal.contains(field), "the refusal names no {field}: {refusal}");
            ensure!(refusal.contains(reason), "the refusal gives no reason: {refusal}");
            Ok(())
        });
    }
    collector.verdict()
}

/// The refusal of an installation that nothing is to be made of.
fn dry_run(cluster: &Cluster, spec: &Value) -> Result<String> {
    let object = json!({
        "apiVersion": "meshwright.dev/v1alpha1", "kind": "MeshInstallation",
        "metadata": {"name": "bad"}, "spec": spec,
    });
    let arguments = ["create", "--dry-run=server", "--filename", "-"];
    match cluster.kubectl_with_input(&arguments, &object.to_string()) {
        Ok(_) => bail!("it was accepted"),
        Err(refusal) => Ok(format!("{refusal:#}")),
    }
}

/// A malformed AdmissionReview gets an error; the webhook goes on serving.
pub fn malformed_review_gets_an_error(cluster: &Cluster) -> Result<()> {
    let restarts = operator_restarts(cluster)?;
    let address = cluster.kubectl_json(&[
        "get",
        "service",
        "meshwright-operator",
        "--namespace",
        SYSTEM,
    ])?["spec"]["clusterIP"]
        .as_str()
        .context("the webhook's Service has no address")?
        .to_owned();
    let mut collector = Collector::default();
    for body in ["{\"kind\":", "[]", "{\"kind\":\"Pod\"}", "", &"[".repeat(100_000)] {
        let shown: String = body.chars().take(20).collect();
        collector.case(&format!("review `{shown}`"), || {
            let (status, answer) = post(cluster, &address, body)?;
            let denied = status == 200
                && answer["response"]["allowed"] == false
                && answer["response"]["status"]["code"].as_u64().is_some_and(|code| code >= 400);
            ensure!(denied || (400..500).contains(&status), "HTTP {status}: {answer}");
            Ok(())
        });
    }
    collector.case("a review that is one", || {
        let (status, answer) = post(cluster, &address, &review().to_string())?;
        ensure!(status == 200 && answer["response"]["allowed"] == true, "HTTP {status}: {answer}");
        ensure!(answer["response"]["uid"] == "review-1", "answered for another: {answer}");
        Ok(())
    });
    collector.verdict()?;
    let now = operator_restarts(cluster)?;
    ensure!(now == restarts, "the operator was restarted: {restarts} times before, {now} now");
    Ok(())
}

fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "review-1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": MESHED, "name": "p", "operation": "CREATE", "dryRun": true,
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "namespace": MESHED},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            },
        },
    })
}

/// Posts to the injection webhook; gives the HTTP status and the answer.
fn post(cluster: &Cluster, address: &str, body: &str) -> Result<(u16, Value)> {
    let mut curl = cluster
        .command("curl")
        .args(["--silent", "--show-error", "--insecure", "--max-time", "10"])
        .args(["--header", "content-type: application/json", "--data-binary", "@-"])
        .args(["--write-out", "\n%{http_code}", &format!("https://{address}:443/inject")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run curl, which this test needs")?;
    let mut stdin = curl.stdin.take().context("curl's standard input")?;
    std::io::Write::write_all(&mut stdin, body.as_bytes()).context("give curl the review")?;
    drop(stdin);
    let output = curl.wait_with_output().context("wait for curl")?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse_answer(&String::from_utf8_lossy(&output.stdout))
}

fn parse_answer(printed: &str) -> Result<(u16, Value)> {
    let (body, status) = printed.rsplit_once('\n').context("curl prints no status")?;
    let status = status.parse().context("curl prints no status")?;
    Ok((status, serde_json::from_str(body).unwrap_or_else(|_| json!(body))))
}

fn operator_restarts(cluster: &Cluster) -> Result<u64> {
    let pods = cluster.kubectl_json(&["get", "pods", "--namespace", SYSTEM])?;
    let is_operator = |pod: &&Value| {
        pod["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("meshwright-operator-"))
    };
    let restarts = |pod: &Value| {
        pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default()
    };
    Ok(testbed::items(&pods).filter(is_operator).map(restarts).sum())
}

/// A VirtualService that names a host or a subset that is not there says so in its status, and
/// that it is well again once it is put right.
pub fn routes_to_nowhere_say_so(cluster: &Cluster) -> Result<()> {
    testbed::ensure(cluster)?;
    let mut collector = Collector::default();
    for (name, destination, missing) in [
        ("missing-host", json!({"host": "nobody-here"}), "nobody-here"),
        ("missing-subset", json!({"host": "declared", "subset": "v9"}), "v9"),
    ] {
        collector.case(name, || {
            route(cluster, name, &destination)?;
            status(cluster, name, |object| complains(object, missing))?;
            route(cluster, name, &json!({"host": "declared"}))?;
            status(cluster, name, |object| {
                let conditions = object["status"]["conditions"].as_array();
                let met = |condition: &Value| condition["status"] != "False";
                let well = conditions.is_some_and(|conditions| conditions.iter().all(met));
                ensure!(well, "still unwell: {conditions:?}");
                Ok(())
            })?;
            testbed::delete(cluster, MESHED, "virtualservice", name)
        });
    }
    collector.verdict()
}

fn route(cluster: &Cluster, name: &str, destination: &Value) -> Result<()> {
    let mut destination = destination.clone();
    destination["port"] = json!({"number": 80});
    let http = json!([{"route": [{"destination": destination}]}]);
    manifest::apply(cluster, &[manifest::virtual_service(MESHED, name, &[name], &http)])
}

fn status(cluster: &Cluster, name: &str, check: impl Fn(&Value) -> Result<()>) -> Result<()> {
    wait_for(&format!("status of {name}"), PROPAGATION, || {
        let arguments = ["get", "virtualservice", name, "--namespace", MESHED];
        let object = cluster.kubectl_json(&arguments)?;
        ensure!(
            object["status"]["observedGeneration"] == object["metadata"]["generation"]
                || object["status"]["observedGeneration"].is_null(),
            "the status is about an older generation"
        );
        check(&object).map(Some)
    })
}

/// Whether one of an object's conditions is not met and says a word.
fn complains(object: &Value, word: &str) -> Result<()> {
    let conditions = object["status"]["conditions"].as_array().context("no conditions yet")?;
    let complaint = |condition: &Value| {
        condition["status"] == "False"
            && condition["message"].as_str().is_some_and(|message| message.contains(word))
    };
    ensure!(conditions.iter().any(complaint), "no condition speaks of {word}: {conditions:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_curl_prints() {
        assert_eq!(parse_answer("{\"a\":\n1}\n200").unwrap(), (200, json!({"a": 1})));
        assert_eq!(parse_answer("bad request\n400").unwrap(), (400, json!("bad request")));
        assert!(parse_answer("").is_err());
    }

    #[test]
    fn a_condition_that_is_met_is_no_complaint() {
        let object = |status| {
            json!({"status": {"conditions": [
                {"type": "Ready", "status": status, "message": "host nobody is not known"},
            ]}})
        };
        assert!(complains(&object("False"), "nobody").is_ok());
        assert!(complains(&object("False"), "somebody").is_err());
        assert!(complains(&object("True"), "nobody").is_err());
        assert!(complains(&json!({}), "nobody").is_err());
    }
}
