//! What an operator is told of the connected proxies: first of all of them, then of changes.
//!
//! Nothing is kept and nothing computed while nobody listens. While somebody does, all members are
//! looked at once a second, and of each is remembered a fingerprint of what was told last: however
//! fast things change and however slowly the operator reads, it gets the newest state and costs no
//! more than that.

pub mod line;
mod serve;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, BuildHasherDefault},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use xxhash_rust::xxh3::Xxh3;

pub use line::{Line, Report, State};
pub use serve::router;

use super::member::Member;
use crate::watch::Key;

/// An answer takes milliseconds; who has not answered for so long is worth a word.
const PATIENCE: Duration = Duration::from_secs(3);
/// Envoy's messages can quote a whole resource.
const LONGEST_MESSAGE: usize = 512;

/// What one listener was told.
#[derive(Debug, Default)]
pub struct Reporter(HashMap<Key, u64>);

impl Reporter {
    /// At most `limit` of the proxies that are not what they were told to be. Fewer than `limit` are
    /// all of them.
    pub fn changes(
        &mut self,
        members: &BTreeMap<u64, Member>,
        now: Instant,
        limit: usize,
    ) -> Vec<Report> {
        // Of several streams of one pod the newest counts: the others are on their way out.
        let newest: HashMap<&Key, &Member> =
            members.values().map(|member| (&member.node.key, member)).collect();
        let mut reports = Vec::new();
        for (key, member) in &newest {
            if reports.len() == limit {
                return reports;
            }
            let fingerprint = fingerprint(member, now);
            if self.0.get(*key) != Some(&fingerprint) {
                self.0.insert((*key).clone(), fingerprint);
                reports.push(report(member, now));
            }
        }
        let gone: Vec<_> = self.0.keys().filter(|key| !newest.contains_key(key)).cloned().collect();
        for key in gone.into_iter().take(limit - reports.len()) {
            self.0.remove(&key);
            reports.push(Report::new(&key, State::Disconnected));
        }
        reports
    }
}

fn state(member: &Member, now: Instant) -> State {
    if !member.rejections.is_empty() {
        State::Rejected
    } else if member.waiting.elapsed(now).is_some_and(|waited| waited >= PATIENCE) {
        State::Pending
    } else {
        State::Current
    }
}

/// Of all that [`report`] says of a member.
fn fingerprint(member: &Member, now: Instant) -> u64 {
    let first = member.rejections.first().map(|first| (&first.name, &first.message));
    let facts = &member.facts;
    let ends = facts.certificate.map(|certificate| certificate.until);
    let all = (state(member, now), first, ends, &facts.envoy, &facts.agent);
    BuildHasherDefault::<Xxh3>::default().hash_one(all)
}

fn report(member: &Member, now: Instant) -> Report {
    let facts = &member.facts;
    let ends = facts.certificate.map(|certificate| certificate.until.unix_timestamp());
    let message = member.rejections.first().map(|first| {
        let text = format!("{:?} {}: {}", first.kind, first.name, first.message);
        text.chars().take(LONGEST_MESSAGE).collect()
    });
    Report {
        message: message.unwrap_or_default(),
        certificate_ends: ends.and_then(|seconds| Timestamp::from_second(seconds).ok()),
        envoy: facts.envoy.clone(),
        agent: facts.agent.clone(),
        ..Report::new(&member.node.key, state(member, now))
    }
}

#[cfg(test)]
mod tests;
