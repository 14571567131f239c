//! The stream to the control plane, opened again whenever it ends.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::{sync::watch, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, client::Grpc};
use tonic_prost::ProstCodec;

use crate::agent::{
    Settings,
    connect::{self, connect},
    identity::{Secrets, with_causes},
    mesh::{
        Learned,
        protocol::{METHOD, Request, Response},
        session::{News, Session},
    },
    retry::{pause, random},
};

/// How soon after a failure the control plane is asked again, at most.
const LAST_RETRY: Duration = Duration::from_secs(15);
/// The hosts of a great mesh in one response.
const LARGEST: usize = 64 * 1024 * 1024;
/// Requests that wait to be sent: the first ones, and an answer.
const QUEUE: usize = 4;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot connect to the control plane")]
    Connect(#[source] connect::Error),
    #[error("the connection to the control plane was lost")]
    Lost(#[source] tonic::transport::Error),
    #[error("the control plane ended the stream: {}", .0.message())]
    Ended(Status),
}

/// Keeps a stream open, and what it brings in `learned`. Does not return while the agent runs.
pub async fn keep(settings: &Settings, mut secrets: watch::Receiver<Secrets>, learned: &Learned) {
    let mut failures = 0_u32;
    loop {
        let complete = |secrets: &Secrets| secrets.certificate.is_some() && secrets.roots.is_some();
        let Ok(current) = secrets.wait_for(complete).await.map(|secrets| secrets.clone()) else {
            return;
        };
        let (opened, mut heard) = (Instant::now(), false);
        tokio::select! {
            ended = follow(settings, &current, learned, &mut heard) => {
                if heard || opened.elapsed() > LAST_RETRY {
                    failures = 0;
                }
                let pause = pause(failures, LAST_RETRY, random());
                failures = failures.saturating_add(1);
                if let Err(error) = ended {
                    tracing::info!(error = %with_causes(&error), retry_in = ?pause, "no stream to the control plane");
                }
                tokio::time::sleep(pause).await;
            }
            // The stream goes on with the new certificate.
            () = renewed(secrets.clone(), &current) => {}
        }
    }
}

/// Returns when there is another certificate than the current one.
async fn renewed(mut secrets: watch::Receiver<Secrets>, current: &Secrets) {
    let another = |secrets: &Secrets| secrets.certificate != current.certificate;
    if secrets.wait_for(another).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// One stream, until it ends.
async fn follow(
    settings: &Settings,
    secrets: &Secrets,
    learned: &Learned,
    heard: &mut bool,
) -> Result<(), Error> {
    let session = Session::new(settings);
    let roots = secrets.roots.as_deref().unwrap_or_default();
    let channel = connect(settings, roots, secrets.certificate.as_deref());
    let mut grpc =
        Grpc::new(channel.await.map_err(Error::Connect)?).max_decoding_message_size(LARGEST);
    grpc.ready().await.map_err(Error::Lost)?;
    let (requests, queue) = tokio::sync::mpsc::channel(QUEUE);
    let first = session.open(settings, &learned.hosts.borrow());
    for request in first {
        // Fewer than the queue holds.
        drop(requests.try_send(request));
    }
    let codec = ProstCodec::<Request, Response>::default();
    let request = tonic::Request::new(ReceiverStream::new(queue));
    let opened = grpc.streaming(request, PathAndQuery::from_static(METHOD), codec).await;
    let mut responses: Streaming<Response> = opened.map_err(Error::Ended)?.into_inner();
    while let Some(response) = responses.message().await.map_err(Error::Ended)? {
        *heard = true;
        let (news, answer) = session.take(response);
        if let Some(refused) = &answer.error_detail {
            tracing::warn!(error = refused.message, "the control plane sent what cannot be used");
        }
        learn(news, learned);
        if requests.send(answer).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn learn(news: News, learned: &Learned) {
    match news {
        News::Hosts { changed, removed } => learned.hosts.send_modify(|table| {
            for (name, version, host) in changed {
                // The session has looked at the addresses.
                drop(table.insert(&name, &version, &host));
            }
            for name in removed {
                table.remove(&name);
            }
            tracing::debug!(hosts = table.len(), "learned of hosts");
        }),
        News::Finished(finished) => {
            learned
                .finished
                .send_if_modified(|known| std::mem::replace(known, finished) != finished);
        }
        News::Nothing => {}
    }
}
