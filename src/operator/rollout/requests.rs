//! What became of requests through some proxies, by the agents' merged metrics.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::Uri;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{
    facts::{Facts, Pod},
    plan::Requests,
};
use crate::webhook::inject::container::MERGED_METRICS_PATH;

const TIMEOUT: Duration = Duration::from_secs(3);
/// Agents that are asked at once.
const AT_ONCE: usize = 8;
/// Agents that are asked at all: more would not make the share more certain.
const MOST: usize = 32;
/// More than any proxy has to say.
const LONGEST: usize = 64 << 20;
const METRIC: &str = "istio_requests_total{";
const CODE: &str = "response_code=\"";

/// Sums the counters of some of the pods, those of each workload in turn, from the agents' port.
/// `None` if none answers.
pub async fn measure(workloads: &[&Facts], port: i32) -> Option<Requests> {
    let client = Client::builder(TokioExecutor::new()).build(connector());
    let addresses: Vec<_> = sample(workloads).iter().map(|pod| pod.address.clone()).collect();
    let asked = addresses.into_iter().map(|address| scrape(client.clone(), address, port));
    let answers: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
    answers.into_iter().flatten().reduce(add)
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(TIMEOUT));
    connector
}

/// The first pods of all workloads, then the second ones, …
fn sample<'a>(workloads: &[&'a Facts]) -> Vec<&'a Pod> {
    let with_proxy = |pod: &&Pod| pod.proxy.is_some() && !pod.address.is_empty();
    let pods: Vec<Vec<_>> =
        workloads.iter().map(|facts| facts.pods.iter().filter(with_proxy).collect()).collect();
    let most = pods.iter().map(Vec::len).max().unwrap_or(0);
    let turns = (0..most).flat_map(|turn| pods.iter().filter_map(move |pods| pods.get(turn)));
    turns.copied().take(MOST).collect()
}

async fn scrape(
    client: Client<HttpConnector, Empty<Bytes>>,
    address: String,
    port: i32,
) -> Option<Requests> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
    let uri: Uri = format!("http://{host}:{port}{MERGED_METRICS_PATH}").parse().ok()?;
    match tokio::time::timeout(TIMEOUT, read(&client, uri)).await {
        Ok(Ok(requests)) => Some(requests),
        Ok(Err(error)) => {
            tracing::debug!(address, %error, "no metrics");
            None
        }
        Err(_) => {
            tracing::debug!(address, "no metrics in time");
            None
        }
    }
}

async fn read(
    client: &Client<HttpConnector, Empty<Bytes>>,
    uri: Uri,
) -> Result<Requests, Box<dyn std::error::Error + Send + Sync>> {
    let answer = client.get(uri).await?;
    if !answer.status().is_success() {
        return Err(format!("status {}", answer.status()).into());
    }
    let mut body = answer.into_body();
    let (mut sum, mut text, mut length) = (Requests::default(), Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        length += data.len();
        if length > LONGEST {
            return Err(format!("more than {LONGEST} bytes").into());
        }
        text.extend_from_slice(&data);
        // Whole lines go at once: the text may be long, and the operator is small.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        sum = add(sum, count(&String::from_utf8_lossy(&text[..whole])));
        text.drain(..whole);
    }
    Ok(add(sum, count(&String::from_utf8_lossy(&text))))
}

/// The requests of these lines.
fn count(text: &str) -> Requests {
    let lines = text.lines().filter_map(line);
    lines.fold(Requests::default(), |sum, (code, number)| {
        let failed = if code.starts_with('5') { number } else { 0 };
        add(sum, Requests { all: number, failed })
    })
}

fn line(line: &str) -> Option<(&str, u64)> {
    let labels = line.strip_prefix(METRIC)?;
    // No label before this one can hold its name: quotes in values are escaped.
    let (_, rest) = labels.split_once(CODE)?;
    let (code, rest) = rest.split_once('"')?;
    let (_, value) = rest.rsplit_once("} ")?;
    let number: f64 = value.split_whitespace().next()?.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a counter is whole and not negative; what is not becomes the nearest that is"
    )]
    Some((code, number as u64))
}

fn add(a: Requests, b: Requests) -> Requests {
    Requests { all: a.all.saturating_add(b.all), failed: a.failed.saturating_add(b.failed) }
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::get};

    use super::*;

    const TEXT: &str = r#"# TYPE istio_requests_total counter
istio_requests_total{reporter="destination",note="a \"response_code=\\\"500",response_code="200",x="}"} 90
istio_requests_total{reporter="destination",response_code="503"} 9 1700000000
istio_requests_total{reporter="source",response_code="500"} 1
istio_request_bytes_sum{response_code="500"} 1000
istio_requests_total{reporter="source"} 5
"#;

    #[test]
    fn counts_answers_by_their_codes() {
        assert_eq!(count(TEXT), Requests { all: 100, failed: 10 });
        assert_eq!(count(TEXT).error_percent(), Some(10.0));
        assert_eq!(Requests { all: 19, failed: 19 }.error_percent(), None);
    }

    fn facts(addresses: &[&str]) -> Facts {
        use crate::operator::{
            fleet::proxy::Workload,
            rollout::facts::{Container, List, PodRef},
        };
        let pod = |address: &&str| Pod {
            at: PodRef {
                namespace: "a".to_owned(),
                name: (*address).to_owned(),
                uid: String::new(),
            },
            created: k8s_openapi::jiff::Timestamp::MIN,
            ready: true,
            unready_since: None,
            address: (*address).to_owned(),
            proxy: Some(Container {
                list: List::InitContainers,
                image: String::new(),
                id: String::new(),
                ready: true,
                waiting: None,
                wanted: String::new(),
                can_leave: true,
            }),
            out_of_service: None,
            replaced: None,
        };
        Facts {
            workload: Workload {
                kind: "Deployment".to_owned(),
                namespace: "a".to_owned(),
                name: "b".to_owned(),
            },
            labels: [].into(),
            wanted: addresses.len(),
            unsettled: None,
            stuck: None,
            takes: 1,
            on_delete: false,
            immovable: None,
            restarted: None,
            pods: addresses.iter().map(pod).collect(),
            budgets: Vec::new(),
        }
    }

    #[test]
    fn asks_every_workload_before_it_asks_one_twice() {
        let (a, b) = (facts(&["1", "2", ""]), facts(&["3"]));
        let order: Vec<_> = sample(&[&a, &b]).iter().map(|pod| pod.address.as_str()).collect();
        assert_eq!(order, ["1", "3", "2"]);
    }

    #[tokio::test]
    async fn sums_what_agents_say_and_minds_none_that_does_not() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let port = i32::from(port);
        let router = Router::new().route("/stats/prometheus", get(|| async { TEXT }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        // Nobody listens on that port of the second address.
        let workload = facts(&["127.0.0.1", "127.0.0.2"]);
        assert_eq!(measure(&[&workload], port).await, Some(Requests { all: 100, failed: 10 }));
        let silent = facts(&["127.0.0.3"]);
        assert_eq!(measure(&[&silent], port).await, None);
    }
}
