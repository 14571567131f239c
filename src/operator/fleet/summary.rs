//! What an installation's status says about its proxies. Pure.

use k8s_openapi::jiff::Timestamp;

use super::{
    Known,
    image::Wanted,
    proxy::Configuration,
    table::Record,
    version::{LARGEST_LAG, Skew, Version},
};
use crate::{
    api::meshwright::{CertificateStatus, ProxyCount},
    control_plane::report::State,
    operator::conditions::Finding,
};

/// How many pods a message names.
const NAMED: usize = 3;

/// The proxies of a revision, summed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub wanted: Wanted,
    pub count: ProxyCount,
    /// By what control planes say: current, pending, disconnected, unknown. `count` has the rejected.
    pub states: States,
    /// When the first of all certificates ends, or a little earlier.
    pub certificate_ends: Option<Timestamp>,
    unready: Sample,
    rejected: Sample,
    /// Ready and yet without a control plane.
    disconnected: Sample,
    too_old: Sample,
    too_new: Sample,
    control_plane: Option<Version>,
    /// Why some states are unknown.
    doubt: Option<String>,
}

/// How many proxies are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States {
    pub current: i32,
    pub pending: i32,
    pub disconnected: i32,
    pub unknown: i32,
}

/// Some pods: how many, and the first by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sample {
    count: usize,
    names: Vec<String>,
}

impl Sample {
    fn add(&mut self, name: &str, remark: &str) {
        self.count += 1;
        let position = self.names.partition_point(|other| other.as_str() < name);
        if position < NAMED {
            let colon = if remark.is_empty() { "" } else { ": " };
            self.names.insert(position, format!("{name}{colon}{remark}"));
            self.names.truncate(NAMED);
        }
    }

    /// `a, b, c and 4 more`.
    fn show(&self) -> String {
        let names = self.names.join(", ");
        match self.count - self.names.len() {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }
}

/// Sums up the proxies of one revision.
pub(super) fn summarize(known: &Known, revision: &str, wanted: Wanted) -> Summary {
    let said = known.reports.version(revision);
    let control_plane = said.or_else(|| wanted.version.parse().ok());
    let doubt = known.doubt(revision);
    let mut summary = Summary { wanted, control_plane, ..Summary::default() };
    let (mut name, mut first_end) = (String::new(), None::<Timestamp>);
    for (_, record) in known.table.records().filter(|(_, r)| &*r.revision == revision) {
        name.clear();
        name.extend([&*record.namespace, "/", &*record.pod]);
        let verdict = known.reports.of(&name);
        summary.add(&name, record);
        match verdict {
            Some(verdict) => {
                let message = verdict.message.as_deref().unwrap_or_default();
                summary.add_state(&name, record, verdict.state, message);
                first_end = first_end.into_iter().chain(verdict.certificate_ends).min();
            }
            None if doubt.is_none() => {
                summary.add_state(&name, record, State::Disconnected, "");
            }
            None => summary.states.unknown += 1,
        }
        let version = verdict.and_then(|v| v.version).or_else(|| Version::of_image(&record.image));
        summary.add_version(&name, version);
    }
    summary.doubt = doubt.filter(|_| summary.states.unknown > 0);
    let grain = summary.wanted.certificate_seconds / 24;
    summary.certificate_ends = first_end.map(|end| rounded_down(end, grain));
    summary.count = std::mem::take(&mut summary.count).summarized();
    summary
}

/// In a large fleet some certificate is renewed every few seconds; the status need not follow each.
fn rounded_down(time: Timestamp, grain_seconds: u64) -> Timestamp {
    let grain = i64::try_from(grain_seconds).unwrap_or(i64::MAX).max(1);
    let second = time.as_second();
    Timestamp::from_second(second - second.rem_euclid(grain)).unwrap_or(time)
}

impl Summary {
    fn add(&mut self, name: &str, record: &Record) {
        self.count.total += 1;
        if record.ready {
            self.count.ready += 1;
        } else {
            self.unready.add(name, "");
        }
        if self.wanted.is_current(&record.image, record.pin.as_deref()) {
            self.count.current += 1;
        } else {
            self.count.outdated += 1;
        }
    }

    fn add_state(&mut self, name: &str, record: &Record, state: State, message: &str) {
        match state {
            State::Current => self.states.current += 1,
            State::Pending => self.states.pending += 1,
            State::Disconnected => {
                self.states.disconnected += 1;
                // One that is not ready has been counted as that.
                if record.ready {
                    self.disconnected.add(name, "");
                }
            }
            State::Rejected => {
                self.count.rejected += 1;
                self.rejected.add(name, message);
            }
        }
    }

    fn add_version(&mut self, name: &str, version: Option<Version>) {
        let Some((version, control_plane)) = version.zip(self.control_plane) else { return };
        let remark = format!("{}.{}", version.major, version.minor);
        match version.beside(control_plane) {
            Skew::Supported => {}
            Skew::TooOld => self.too_old.add(name, &remark),
            Skew::TooNew => self.too_new.add(name, &remark),
        }
    }

    /// The entry of the status's list of certificates.
    pub fn certificate(&self) -> Option<CertificateStatus> {
        let not_after = self.certificate_ends?.to_string();
        Some(CertificateStatus { name: "proxies".to_owned(), not_after })
    }

    /// The conditions `ProxiesReady` and `ProxiesSupported`.
    pub fn findings(&self) -> [Finding; 2] {
        [self.readiness(), self.support()]
    }

    /// What is known to be wrong comes before what is not known.
    fn readiness(&self) -> Finding {
        const KIND: &str = "ProxiesReady";
        let no = |reason, message| Finding::new(KIND, false, reason, message);
        let ProxyCount { total, outdated, rejected, .. } = self.count;
        if rejected > 0 {
            let pods = self.rejected.show();
            let message = format!(
                "{rejected} of {total} proxies refuse a part of their configuration and keep the last one that they accepted: {pods}; the object that it came from says in its status what is wrong"
            );
            return no("Rejected", message);
        }
        if self.unready.count > 0 {
            let message = format!(
                "{} of {total} pods with a proxy are not ready: {}",
                self.unready.count,
                self.unready.show()
            );
            return no("NotReady", message);
        }
        if self.disconnected.count > 0 {
            let message = format!(
                "{} of {total} proxies are connected to no control plane and keep the configuration that they have: {}",
                self.disconnected.count,
                self.disconnected.show()
            );
            return no("Disconnected", message);
        }
        if let Some(doubt) = &self.doubt {
            let unknown = self.states.unknown;
            let message = format!(
                "what {unknown} of {total} proxies are configured with is not known: {doubt}"
            );
            return Finding { kind: KIND, status: None, reason: "NotKnown", message };
        }
        if total == 0 {
            return Finding::new(KIND, true, "NoProxies", "no proxy runs");
        }
        let outdated = match outdated {
            0 => String::new(),
            n => format!("; {n} of {total} run another image than they would get now"),
        };
        Finding::new(KIND, true, "Ready", format!("all proxies are ready{outdated}"))
    }

    fn support(&self) -> Finding {
        const KIND: &str = "ProxiesSupported";
        let Some(Version { major, minor }) = self.control_plane else {
            let message = "the control plane's version is not one with numbers, so proxies' are not compared with it";
            return Finding::new(KIND, true, "NotCompared", message);
        };
        let mut messages = Vec::new();
        if self.too_old.count > 0 {
            messages.push(format!(
                "{} proxies are more than {LARGEST_LAG} minor versions behind their control plane, which is {major}.{minor}: {}; restart their workloads (kubectl rollout restart), or set spec.fleet.strategy",
                self.too_old.count,
                self.too_old.show()
            ));
        }
        if self.too_new.count > 0 {
            messages.push(format!(
                "{} proxies are ahead of their control plane, which is {major}.{minor}: {}; upgrade the control plane (spec.version), or restart their workloads",
                self.too_new.count,
                self.too_new.show()
            ));
        }
        let reason = match (self.too_old.count, self.too_new.count) {
            (0, 0) => {
                let message = format!(
                    "every proxy is at most {LARGEST_LAG} minor versions behind its control plane"
                );
                return Finding::new(KIND, true, "Supported", message);
            }
            (0, _) => "TooNew",
            _ => "TooOld",
        };
        Finding::new(KIND, false, reason, messages.join("; "))
    }
}

/// What is known of one proxy's configuration.
pub(super) fn configuration(
    known: &Known,
    record: &Record,
    has_doubt: bool,
) -> (Configuration, Option<Timestamp>) {
    match known.reports.of(&format!("{}/{}", record.namespace, record.pod)) {
        Some(verdict) => (verdict.configuration(), verdict.certificate_ends),
        None if has_doubt => (Configuration::Unknown, None),
        None => (Configuration::Disconnected, None),
    }
}

#[cfg(test)]
mod tests;
