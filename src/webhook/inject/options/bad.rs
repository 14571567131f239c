//! A value that cannot be used, in words for the person who wrote it.

use std::fmt;

/// How much of a value is repeated.
const SHOWN: usize = 60;

/// An annotation or label whose value is not of the accepted form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOption {
    /// As it stands in the pod.
    pub annotation: String,
    /// Shortened, and harmless in a terminal and in a log.
    pub value: String,
    /// What is wrong with it, if more can be said than that it is not of the form.
    pub because: String,
    /// The accepted form, to be read after "the value must be".
    pub form: &'static str,
    pub example: &'static str,
}

impl fmt::Display for BadOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { annotation, value, because, form, example } = self;
        write!(f, "{annotation} is {value}: ")?;
        if !because.is_empty() {
            write!(f, "{because}; ")?;
        }
        write!(f, "the value must be {form}, such as {example}")
    }
}

/// A value between quotation marks, with escapes for all that is not plain ASCII.
pub(super) fn shown(value: &str) -> String {
    format!("\"{}\"", shortened(value, SHOWN).escape_default())
}

/// A text of another parser, which may hold parts of a value: on one line, without control
/// characters, of a length that can be read.
pub(super) fn harmless(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
    let words: String = text.chars().take(4 * SHOWN).map(plain).collect();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shortened(value: &str, longest: usize) -> String {
    match value.char_indices().nth(longest) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_harmless() {
        assert_eq!(shown("a\"b\n\u{1b}[31m\u{202e}"), r#""a\"b\n\u{1b}[31m\u{202e}""#);
        assert_eq!(shown(&"x".repeat(500)).len(), SHOWN + 5);
        assert_eq!(harmless("line 1\n  \u{7}line 2"), "line 1 line 2");
    }

    #[test]
    fn says_what_to_write_instead() {
        let bad = BadOption {
            annotation: "meshwright.dev/proxy-cpu".to_owned(),
            value: shown("much"),
            because: String::new(),
            form: "an amount of CPU",
            example: "100m",
        };
        let want = "meshwright.dev/proxy-cpu is \"much\": the value must be an amount of CPU, such as 100m";
        assert_eq!(bad.to_string(), want);
    }
}
