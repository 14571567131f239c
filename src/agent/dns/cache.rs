//! Answers of upstream, for as long as they may be kept, and longer while upstream is away. Pure:
//! time is an input.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::agent::dns::wire::{Message, Question, Section};

/// What all answers together may take.
const MOST_BYTES: usize = 256 * 1024;
/// And how many they may be: each costs about this much besides its bytes.
const OVERHEAD: usize = 256;
/// A larger answer is worth asking again.
const LARGEST: usize = 8 * 1024;
/// However long others allow, in seconds: a mistake in somebody's zone ends with the hour, and one
/// in a name that was asked for too early within minutes.
const LONGEST: u32 = 3600;
const LONGEST_ABSENCE: u32 = 300;
/// How long after its time an answer may be given while upstream is away (RFC 8767).
const STALE: Duration = Duration::from_hours(1);
/// After a failure, how long upstream is not asked again for an answer that is there.
const RECHECK: Duration = Duration::from_secs(5);

/// Kept answers by their question.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Question, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    answer: Bytes,
    stored: Instant,
    expires: Instant,
    /// Upstream was away at that time, and is not asked before.
    recheck: Option<Instant>,
}

/// A kept answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub answer: Bytes,
    pub freshness: Freshness,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// So many seconds old.
    Fresh(u32),
    /// Past its time, and upstream did not answer a moment ago.
    Away,
    /// Past its time: better than nothing.
    Stale,
}

impl Cache {
    pub fn get(&self, question: &Question, now: Instant) -> Option<Kept> {
        let entry = self.entries.get(question)?;
        let freshness = if now < entry.expires {
            let age = now.saturating_duration_since(entry.stored).as_secs();
            Freshness::Fresh(u32::try_from(age).unwrap_or(u32::MAX))
        } else if now >= entry.expires + STALE {
            return None;
        } else if entry.recheck.is_some_and(|recheck| now < recheck) {
            Freshness::Away
        } else {
            Freshness::Stale
        };
        Some(Kept { answer: entry.answer.clone(), freshness })
    }

    /// Keeps an answer if it may be kept.
    pub fn put(&mut self, question: &Question, answer: &Bytes, now: Instant) {
        let Some(seconds) = lifetime(answer).filter(|_| answer.len() <= LARGEST) else { return };
        self.remove(question);
        while self.bytes + cost(answer) > MOST_BYTES {
            self.make_room(now);
        }
        self.bytes += cost(answer);
        let expires = now + Duration::from_secs(seconds.into());
        let entry = Entry { answer: answer.clone(), stored: now, expires, recheck: None };
        self.entries.insert(question.clone(), entry);
    }

    /// Upstream did not answer.
    pub fn failed(&mut self, question: &Question, now: Instant) {
        if let Some(entry) = self.entries.get_mut(question) {
            entry.recheck = Some(now + RECHECK);
        }
    }

    /// Throws out what cannot be used any more, or else what ends first.
    fn make_room(&mut self, now: Instant) {
        let before = self.bytes;
        self.entries.retain(|_, entry| {
            let keep = now < entry.expires + STALE;
            self.bytes -= if keep { 0 } else { cost(&entry.answer) };
            keep
        });
        if self.bytes == before {
            let first = self.entries.iter().min_by_key(|(_, entry)| entry.expires);
            if let Some(question) = first.map(|(question, _)| question.clone()) {
                self.remove(&question);
            }
        }
    }

    fn remove(&mut self, question: &Question) {
        if let Some(entry) = self.entries.remove(question) {
            self.bytes -= cost(&entry.answer);
        }
    }
}

fn cost(answer: &Bytes) -> usize {
    answer.len() + OVERHEAD
}

/// For how many seconds an answer may be kept; `None` if not at all.
fn lifetime(answer: &[u8]) -> Option<u32> {
    let message = Message::read(answer)?;
    let code = message.header.response_code;
    if message.header.truncation || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return None;
    }
    // Above this, a number of seconds means none (RFC 2181).
    let ttls = message.records.iter().map(|r| if r.ttl > i32::MAX as u32 { 0 } else { r.ttl });
    let shortest = ttls.min();
    let kind = message.query.query_type();
    let found = message.section(Section::Answer).any(|r| r.kind == kind || kind == RecordType::ANY);
    let seconds = if code == ResponseCode::NoError && found {
        shortest?.min(LONGEST)
    } else {
        let soa = message.section(Section::Authority).find(|r| r.kind == RecordType::SOA)?;
        // The last of its numbers.
        let minimum = answer[soa.data.clone()].last_chunk::<4>()?;
        shortest?.min(u32::from_be_bytes(*minimum)).min(LONGEST_ABSENCE)
    };
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests;
