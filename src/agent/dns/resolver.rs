//! From a packet to its reply.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use tokio::sync::watch;

use super::{
    Figures,
    answer::{Decision, Domains, TTL, decide},
    cache::Freshness,
    forward::{Answer, Forwarder},
    resolv::File,
    wire::{Question, Received, Record, Reply, Request, Transport, compose, receive, records},
};
use crate::agent::mesh::Table;

/// Where the resolver finds what it needs.
#[derive(Clone, Debug)]
pub struct Config {
    pub domains: Domains,
    /// `/etc/resolv.conf`; another in tests, as is the servers' port.
    pub resolv_conf: PathBuf,
    pub upstream_port: u16,
}

/// Answers questions.
#[derive(Debug)]
pub struct Resolver {
    hosts: watch::Receiver<Table>,
    domains: Domains,
    resolv: File,
    forwarder: Forwarder,
    figures: Arc<Figures>,
    rotation: AtomicUsize,
}

/// What becomes of a packet.
pub(super) enum Step {
    Ignore,
    Reply(Vec<u8>),
    /// Upstream has to be asked.
    Ask(Box<Pending>),
}

/// A question that waits for upstream.
pub(super) struct Pending {
    reply: Forwarded,
    /// An answer past its time.
    kept: Option<Bytes>,
}

/// What is made of upstream's answer.
struct Forwarded {
    request: Box<Request>,
    limit: usize,
    /// What upstream is asked: the client's question, or the target of aliases.
    question: Question,
    aliases: Vec<Record>,
    exists: bool,
}

impl Resolver {
    pub fn new(config: Config, hosts: watch::Receiver<Table>, figures: Arc<Figures>) -> Self {
        Self {
            hosts,
            domains: config.domains,
            resolv: File::open(config.resolv_conf),
            forwarder: Forwarder::new(config.upstream_port, Arc::clone(&figures)),
            figures,
            rotation: AtomicUsize::default(),
        }
    }

    /// Answers at once if it can.
    pub(super) fn begin(&self, packet: &[u8], transport: Transport) -> Step {
        let request = match receive(packet) {
            Received::Ignored => return Step::Ignore,
            Received::Refused(reply) => {
                self.figures.asked();
                return Step::Reply(reply);
            }
            Received::Asked(request) => request,
        };
        self.figures.asked();
        let limit = request.limit(transport);
        let (question, aliases, exists) = match self.decide(&request.question) {
            Decision::Answer(records) => {
                let reply = compose(&request, ResponseCode::NoError, true, &records);
                return Step::Reply(reply.fit(&request, limit));
            }
            Decision::Chase { aliases, target } => (request.question.about(target), aliases, true),
            Decision::Forward { exists } => (request.question.clone(), Vec::new(), exists),
        };
        let reply = Forwarded { request, limit, question, aliases, exists };
        let kept = self.forwarder.kept(&reply.question);
        let (answer, age) = match kept {
            None => return Step::Ask(Box::new(Pending { reply, kept: None })),
            Some(kept) => match kept.freshness {
                Freshness::Fresh(age) => (kept.answer, Some(age)),
                Freshness::Away => (kept.answer, None),
                Freshness::Stale => {
                    return Step::Ask(Box::new(Pending { reply, kept: Some(kept.answer) }));
                }
            },
        };
        self.figures.hit();
        Step::Reply(reply.make(&answer, age))
    }

    /// Answers with upstream's help.
    pub(super) async fn end(&self, pending: Pending) -> Vec<u8> {
        let Pending { reply, kept } = pending;
        let servers = self.resolv.current();
        match self.forwarder.ask(&servers.servers, &reply.question, kept).await {
            Answer::New(answer) => reply.make(&answer, Some(0)),
            Answer::Stale(answer) => {
                self.figures.hit();
                reply.make(&answer, None)
            }
            Answer::None => reply.request.failure(ResponseCode::ServFail),
        }
    }

    fn decide(&self, question: &Question) -> Decision {
        let rotation = self.rotation.fetch_add(1, Ordering::Relaxed);
        let search = &self.resolv.current().search;
        decide(&self.hosts.borrow(), &self.domains, search, question, rotation)
    }
}

impl Forwarded {
    /// The client's reply from upstream's answer, which is `age` seconds old, or past its time.
    fn make(&self, answer: &[u8], age: Option<u32>) -> Vec<u8> {
        let Some(mut reply) = Reply::adopt(answer.to_vec(), &self.question) else {
            return self.request.failure(ResponseCode::ServFail);
        };
        match age {
            Some(age) => reply.map_ttl(|ttl| ttl.saturating_sub(age)),
            None => reply.map_ttl(|_| TTL),
        }
        if !self.aliases.is_empty() {
            let all =
                self.aliases.iter().cloned().chain(records(reply.bytes())).collect::<Vec<_>>();
            reply = compose(&self.request, reply.code(), false, &all);
        } else if self.exists {
            reply.exists();
        }
        reply.fit(&self.request, self.limit)
    }
}
