//! What all control planes say, as one. Without I/O: lines in, verdicts out.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;

use super::{proxy::Configuration, table::Interner, version::Version};
use crate::control_plane::report::{Line, Report, State};

/// A control plane that is asked.
pub type Source = Arc<str>;

/// What all control planes say.
#[derive(Debug, Default)]
pub struct Reports {
    sources: HashMap<Source, Said>,
    /// Counts reports: of two about the same pod the later one counts.
    sequence: u64,
    /// Whether it is known which control planes there are.
    listed: bool,
    texts: Interner<str>,
}

/// What one control plane says.
#[derive(Debug)]
struct Said {
    revision: String,
    version: String,
    state: Stream,
    /// By `NAMESPACE/POD`.
    proxies: HashMap<Box<str>, Known>,
    /// Which stream this is: what an earlier one said stays until the next has said all.
    stream: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stream {
    /// It is asked for the first time.
    Opening,
    Synced,
    /// It cannot be asked, for this reason.
    Lost(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    sequence: u64,
    stream: u64,
    verdict: Verdict,
}

/// What is said of a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub state: State,
    pub message: Option<Arc<str>>,
    pub certificate_ends: Option<Timestamp>,
    /// Of the agent.
    pub version: Option<Version>,
}

impl Verdict {
    pub fn configuration(&self) -> Configuration {
        match self.state {
            State::Current => Configuration::Current,
            State::Pending => Configuration::Pending,
            State::Rejected => {
                Configuration::Rejected(self.message.as_deref().unwrap_or_default().to_owned())
            }
            State::Disconnected => Configuration::Disconnected,
        }
    }
}

impl Reports {
    /// These are the control planes now, with their revisions.
    pub fn set_sources<'a>(&mut self, sources: impl Iterator<Item = (&'a Source, &'a str)>) {
        let mut before = std::mem::take(&mut self.sources);
        self.sources = sources
            .map(|(source, revision)| {
                let known = before.remove(source).filter(|said| said.revision == revision);
                (source.clone(), known.unwrap_or_else(|| Said::new(revision)))
            })
            .collect();
        self.listed = true;
    }

    /// A control plane says something.
    pub fn hear(&mut self, source: &Source, line: Line) {
        let Some(said) = self.sources.get_mut(source) else { return };
        match line {
            Line::Hello { version } => {
                said.version = version;
                said.stream += 1;
            }
            Line::Proxy(report) => {
                self.sequence += 1;
                said.take(report, self.sequence, &mut self.texts);
            }
            Line::Synced => {
                said.state = Stream::Synced;
                let stream = said.stream;
                said.proxies.retain(|_, known| known.stream == stream);
            }
            Line::Heartbeat | Line::Unknown => {}
        }
    }

    /// A control plane cannot be asked: what it said may not be so any more.
    pub fn lose(&mut self, source: &Source, reason: String) {
        let Some(said) = self.sources.get_mut(source) else { return };
        said.proxies = HashMap::new();
        said.state = Stream::Lost(reason);
    }

    /// Whether everybody who can be asked has answered.
    pub fn are_complete(&self) -> bool {
        self.listed && self.sources.values().all(|said| said.state != Stream::Opening)
    }

    /// What is said of the pod `NAMESPACE/POD`, if anything is.
    pub fn of(&self, pod: &str) -> Option<&Verdict> {
        let known = self.sources.values().filter_map(|said| said.proxies.get(pod));
        known.max_by_key(|known| known.sequence).map(|known| &known.verdict)
    }

    /// Why a proxy of this revision of which nothing is said may be connected all the same. `None`:
    /// all control planes of the revision were asked, and none has it.
    pub fn doubt(&self, revision: &str) -> Option<String> {
        let mut sources: Vec<_> =
            self.sources.iter().filter(|(_, said)| said.revision == revision).collect();
        if sources.is_empty() {
            return Some("no control plane of the revision runs".to_owned());
        }
        sources.sort_by_key(|(source, _)| *source);
        sources.into_iter().find_map(|(source, said)| match &said.state {
            Stream::Synced => None,
            Stream::Opening => Some(format!("control plane {source} has not answered yet")),
            Stream::Lost(reason) => Some(format!("control plane {source}: {reason}")),
        })
    }

    /// The lowest version of a revision's control planes, as they say it themselves.
    pub fn version(&self, revision: &str) -> Option<Version> {
        let said = self.sources.values().filter(|said| said.revision == revision);
        said.filter_map(|said| said.version.parse().ok()).min()
    }
}

impl Said {
    fn new(revision: &str) -> Self {
        Self {
            revision: revision.to_owned(),
            version: String::new(),
            state: Stream::Opening,
            proxies: HashMap::new(),
            stream: 0,
        }
    }

    fn take(&mut self, report: Report, sequence: u64, texts: &mut Interner<str>) {
        let pod = format!("{}/{}", report.namespace, report.pod).into_boxed_str();
        if report.state == State::Disconnected {
            self.proxies.remove(&pod);
            return;
        }
        let message = Some(report.message).filter(|message| !message.is_empty());
        let verdict = Verdict {
            state: report.state,
            message: message.map(|message| texts.shared(message.as_str())),
            certificate_ends: report.certificate_ends,
            version: report.agent.parse().ok(),
        };
        self.proxies.insert(pod, Known { sequence, stream: self.stream, verdict });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::Key;

    fn proxy(pod: &str, state: State) -> Line {
        let message = if state == State::Rejected { "no" } else { "" };
        let report = Report::new(&Key::new("shop", pod), state);
        Line::Proxy(Report { message: message.to_owned(), ..report })
    }

    fn hello() -> Line {
        Line::Hello { version: "1.4.0".to_owned() }
    }

    fn started(sources: &[&str]) -> (Reports, Vec<Source>) {
        let sources: Vec<Source> = sources.iter().map(|&name| name.into()).collect();
        let mut reports = Reports::default();
        reports.set_sources(sources.iter().map(|source| (source, "default")));
        (reports, sources)
    }

    fn state(reports: &Reports, pod: &str) -> Option<State> {
        reports.of(&format!("shop/{pod}")).map(|verdict| verdict.state)
    }

    #[test]
    fn several_control_planes_have_their_share_each() {
        let (mut reports, sources) = started(&["a", "b"]);
        reports.hear(&sources[0], hello());
        reports.hear(&sources[0], proxy("one", State::Current));
        reports.hear(&sources[0], Line::Synced);
        assert!(!reports.are_complete());
        assert!(reports.doubt("default").unwrap().contains("b has not answered"));
        reports.hear(&sources[1], hello());
        reports.hear(&sources[1], proxy("two", State::Rejected));
        reports.hear(&sources[1], Line::Synced);
        assert!(reports.are_complete());
        assert_eq!(reports.doubt("default"), None);
        assert_eq!(state(&reports, "one"), Some(State::Current));
        let refused = reports.of("shop/two").unwrap().configuration();
        assert_eq!(refused, Configuration::Rejected("no".to_owned()));
        assert_eq!(state(&reports, "three"), None);
        assert_eq!(reports.version("default"), Some(Version { major: 1, minor: 4 }));
        assert_eq!(reports.version("other"), None);
    }

    #[test]
    fn a_proxy_that_moves_is_never_without_a_control_plane() {
        let (mut reports, sources) = started(&["a", "b"]);
        reports.hear(&sources[0], proxy("one", State::Current));
        reports.hear(&sources[1], proxy("one", State::Pending));
        assert_eq!(state(&reports, "one"), Some(State::Pending));
        reports.hear(&sources[0], proxy("one", State::Disconnected));
        assert_eq!(state(&reports, "one"), Some(State::Pending));
    }

    #[test]
    fn what_was_known_stays_until_the_next_stream_has_said_all() {
        let (mut reports, sources) = started(&["a"]);
        for line in [hello(), proxy("one", State::Current), proxy("two", State::Current)] {
            reports.hear(&sources[0], line);
        }
        reports.hear(&sources[0], Line::Synced);
        reports.hear(&sources[0], hello());
        reports.hear(&sources[0], proxy("two", State::Current));
        assert_eq!(state(&reports, "one"), Some(State::Current));
        reports.hear(&sources[0], Line::Synced);
        assert_eq!(state(&reports, "one"), None);
        assert_eq!(state(&reports, "two"), Some(State::Current));
    }

    #[test]
    fn who_cannot_be_asked_leaves_doubt() {
        let (mut reports, sources) = started(&["a"]);
        assert!(!reports.are_complete());
        reports.hear(&sources[0], proxy("one", State::Current));
        reports.lose(&sources[0], "connection refused".to_owned());
        assert!(reports.are_complete());
        assert_eq!(state(&reports, "one"), None);
        assert_eq!(reports.doubt("default").unwrap(), "control plane a: connection refused");
        reports.set_sources(std::iter::empty());
        assert!(reports.doubt("default").unwrap().contains("runs"));
        // Too late: it is not asked any more.
        reports.hear(&sources[0], proxy("one", State::Current));
        assert_eq!(state(&reports, "one"), None);
    }
}
