//! Joining texts of metrics into one. Pure.

use std::{
    borrow::Cow,
    collections::HashSet,
    hash::{BuildHasher, RandomState},
};

/// What Envoy puts before the name of each of its metrics.
const ENVOY_PREFIX: &[u8] = b"envoy_";
/// How the names of the mesh's standard metrics begin.
const STANDARD_PREFIX: &[u8] = b"istio_";
/// A longer line is not text that anybody meant to send.
const LONGEST_LINE: usize = 64 * 1024;
/// The kinds of metric that Prometheus' text format knows. A scraper refuses a text with others.
const KINDS: [&[u8]; 5] = [b"counter", b"gauge", b"histogram", b"summary", b"untyped"];

/// How a text is written. The merged one is in Prometheus' own format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    #[default]
    Prometheus,
    OpenMetrics,
}

/// Joins texts so that the whole is one valid text: names as they should read, and each described
/// once.
#[derive(Debug, Default)]
pub(super) struct Merge {
    dialect: Dialect,
    /// Hashes of the `# TYPE` and `# HELP` lines' subjects that were passed on.
    described: HashSet<u64>,
    hasher: RandomState,
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// That line is too long: its end is dropped too.
    endless: bool,
}

impl Merge {
    /// The next text is of this dialect.
    pub(super) fn begin(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// A piece of a text; returns the lines that are whole now.
    pub(super) fn take(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len() + self.partial.len());
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            if self.partial.is_empty() && !self.endless {
                self.line(line, &mut out);
            } else {
                self.hold(line);
                self.held_line(&mut out);
            }
            rest = after;
        }
        self.hold(rest);
        out
    }

    /// Keeps what continues the line.
    fn hold(&mut self, part: &[u8]) {
        self.endless |= self.partial.len() + part.len() > LONGEST_LINE;
        if self.endless {
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(part);
        }
    }

    fn held_line(&mut self, out: &mut Vec<u8>) {
        let mut line = std::mem::take(&mut self.partial);
        self.endless = false;
        self.line(&line, out);
        line.clear();
        self.partial = line;
    }

    /// The end of a text, whose last line may lack its end.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.held_line(&mut out);
        self.dialect = Dialect::default();
        out
    }

    /// A whole text.
    pub(super) fn text(&mut self, text: &[u8]) -> Vec<u8> {
        let mut out = self.take(text);
        out.extend(self.finish());
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (head, name) = match line {
            [b'#', ..] => line.split_at(line.len().min(7)),
            _ => line.split_at(0),
        };
        // The end of an OpenMetrics text is not our end; other comments say nothing.
        if name.is_empty() || !matches!(head, b"" | b"# TYPE " | b"# HELP ") {
            return;
        }
        let name = standard_name(name);
        if !head.is_empty() {
            // Who came first is believed where two texts describe a name differently.
            let subject = name.split(|byte| *byte == b' ').next().unwrap_or_default();
            if !self.described.insert(self.hasher.hash_one((head, subject))) {
                return;
            }
        }
        out.extend_from_slice(head);
        out.extend_from_slice(&match (self.dialect, head) {
            (Dialect::OpenMetrics, b"# TYPE ") => known_kind(name),
            (Dialect::OpenMetrics, b"") => plain_sample(name),
            _ => Cow::Borrowed(name),
        });
        out.push(b'\n');
    }
}

/// Takes from a line that begins with a metric's name what Envoy put before a standard metric's.
fn standard_name(line: &[u8]) -> &[u8] {
    let Some(rest) = line.strip_prefix(ENVOY_PREFIX) else { return line };
    let end = rest.iter().position(|byte| matches!(byte, b'{' | b' ')).unwrap_or(rest.len());
    let starts = |at: &usize| *at == 0 || rest[at - 1] == b'_';
    let found = rest[..end]
        .windows(STANDARD_PREFIX.len())
        .enumerate()
        .filter(|(_, window)| *window == STANDARD_PREFIX)
        .map(|(at, _)| at)
        .find(starts);
    found.map_or(line, |at| &rest[at..])
}

/// `NAME KIND`, with a kind that only OpenMetrics has as an untyped one.
fn known_kind(line: &[u8]) -> Cow<'_, [u8]> {
    let Some(at) = line.iter().position(|byte| *byte == b' ') else { return line.into() };
    let (name, kind) = line.split_at(at);
    if KINDS.contains(&kind.trim_ascii()) {
        line.into()
    } else {
        [name, b" untyped"].concat().into()
    }
}

/// A sample of OpenMetrics without its exemplar, and with its time in milliseconds, not seconds.
fn plain_sample(line: &[u8]) -> Cow<'_, [u8]> {
    let (series, rest) = line.split_at(series_end(line));
    let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let Some(value) = words.next() else { return line.into() };
    let mut plain = [series, b" ", value].concat();
    let time = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<f64>().ok());
    if let Some(seconds) = time {
        plain.extend_from_slice(format!(" {:.0}", seconds * 1000.0).as_bytes());
    }
    plain.into()
}

/// Where a sample's name and labels end.
fn series_end(line: &[u8]) -> usize {
    let (mut quoted, mut escaped, mut labels) = (false, false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' if !quoted => labels = true,
            b'}' if !quoted => return at + 1,
            b' ' if !quoted && !labels => return at,
            _ => {}
        }
    }
    line.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ENVOY: &str = "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n\
        # TYPE envoy_mesh_istio_requests_total counter\n\
        envoy_mesh_istio_requests_total{a=\"envoy_istio_x 1\"} 3\n\
        # TYPE envoy_other_istio_requests_total counter\n\
        envoy_other_istio_requests_total{a=\"y\"} 4\n\
        # TYPE envoy_istio_request_bytes histogram\n\
        envoy_istio_request_bytes_bucket{le=\"+Inf\"} 1\n";

    #[test]
    fn standard_metrics_read_as_is_and_are_described_once() {
        let mut merge = Merge::default();
        let got = String::from_utf8(merge.text(ENVOY.as_bytes())).unwrap();
        assert_eq!(
            got,
            "# TYPE envoy_server_live gauge\nenvoy_server_live{} 1\n\
             # TYPE istio_requests_total counter\n\
             istio_requests_total{a=\"envoy_istio_x 1\"} 3\n\
             istio_requests_total{a=\"y\"} 4\n\
             # TYPE istio_request_bytes histogram\n\
             istio_request_bytes_bucket{le=\"+Inf\"} 1\n"
        );
    }

    #[test]
    fn texts_follow_one_another() {
        let mut merge = Merge::default();
        let first = merge.text(b"# HELP a An a.\n# TYPE a counter\r\na 1");
        let second = merge.text(b"# TYPE a gauge\na{x=\"2\"} 2\n# a remark\n#\n\n# EOF\n");
        let got = String::from_utf8([first, second].concat()).unwrap();
        assert_eq!(got, "# HELP a An a.\n# TYPE a counter\na 1\na{x=\"2\"} 2\n");
    }

    #[test]
    fn open_metrics_become_plain_text() {
        let mut merge = Merge::default();
        merge.begin(Dialect::OpenMetrics);
        let got = merge.text(
            b"# TYPE up unknown\n# UNIT up things\nup 1\n\
              # TYPE hits counter\n\
              hits_total{path=\"/a } # {b\\\" 1\"} 17 1520879607.789 # {trace_id=\"x\"} 0.67 1520.1\n\
              hits_total{path=\"/b\"} 1 # {trace_id=\"y\"} 1\n\
              # TYPE build info\nbuild_info{version=\"1\"} 1\n\
              # EOF\n",
        );
        assert_eq!(
            String::from_utf8(got).unwrap(),
            "# TYPE up untyped\nup 1\n\
             # TYPE hits counter\n\
             hits_total{path=\"/a } # {b\\\" 1\"} 17 1520879607789\n\
             hits_total{path=\"/b\"} 1\n\
             # TYPE build untyped\nbuild_info{version=\"1\"} 1\n"
        );
        let plain = merge.text(b"a 1 1520879607789\n");
        assert_eq!(plain, b"a 1 1520879607789\n", "the next text is plain again");
    }

    #[test]
    fn other_names_keep_their_prefix() {
        for line in ["envoy_cluster_x{n=\"istio_y\"} 1", "istio_x 1", "envoy_myistio_x 1", "envoy_"]
        {
            assert_eq!(standard_name(line.as_bytes()), line.as_bytes());
        }
    }

    #[test]
    fn an_endless_line_is_dropped_and_the_next_is_not() {
        let mut merge = Merge::default();
        for _ in 0..3 {
            assert!(merge.take(&vec![b'x'; 40_000]).is_empty());
            assert!(merge.partial.len() <= LONGEST_LINE);
        }
        assert_eq!(merge.take(b"its end 1\na 1\n"), b"a 1\n");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cuts in proptest::collection::vec(0..ENVOY.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, ENVOY.len()]);
            cuts.sort_unstable();
            let mut merge = Merge::default();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                got.extend(merge.take(&ENVOY.as_bytes()[pair[0]..pair[1]]));
            }
            got.extend(merge.finish());
            prop_assert_eq!(got, Merge::default().text(ENVOY.as_bytes()));
        }

        #[test]
        fn samples_of_open_metrics_lose_their_exemplar_alone(
            label in r#"([ -!#-\[\]-~]|\\[\\"n]){0,20}"#,
            value in "[0-9]{1,5}",
            seconds in proptest::option::of(0_u32..2_000_000_000),
            exemplar in proptest::option::of("[ -~]{0,20}"),
        ) {
            let series = format!("hits_total{{path=\"{label}\"}} {value}");
            let time = |factor| seconds.map(|s| format!(" {}", u64::from(s) * factor));
            let exemplar = exemplar.map(|text| format!(" # {text}"));
            let line = [Some(series.clone()), time(1), exemplar].into_iter().flatten();
            let want = [Some(series), time(1000)].into_iter().flatten().collect::<String>();
            let mut merge = Merge::default();
            merge.begin(Dialect::OpenMetrics);
            let got = merge.text(line.collect::<String>().as_bytes());
            prop_assert_eq!(String::from_utf8(got).unwrap(), want + "\n");
        }
    }
}
