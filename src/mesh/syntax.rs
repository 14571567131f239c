//! Small texts inside objects: durations, host names, header names, regular expressions. Each
//! function returns the value or a sentence on what is wrong.

use std::time::Duration;

/// A duration as Go writes it: `1h2m3s4ms`, `1.5s`, `0s`.
pub fn duration(text: &str) -> Result<Duration, String> {
    /// Envoy keeps durations in protobuf's range; a day is far beyond every use of ours.
    const LONGEST: f64 = 365.0 * 24.0 * 3600.0;
    let wrong =
        || format!("{text:?} is no duration: write numbers with units, such as 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        seconds += number
            * match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = tail;
    }
    if seconds > LONGEST {
        return Err(format!("{text:?} is longer than a year"));
    }
    // Whole microseconds: Go's decimal texts must not turn into 4.999999 ms.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 ≤ seconds ≤ one year, which fits"
    )]
    let microseconds = (seconds * 1e6).round() as u64;
    Ok(Duration::from_micros(microseconds))
}

/// A duration of at least a millisecond, or `None` for zero (no limit).
pub fn timeout(text: &str) -> Result<Option<Duration>, String> {
    match duration(text)? {
        Duration::ZERO => Ok(None),
        short if short < Duration::from_millis(1) => {
            Err(format!("{text:?} is shorter than a millisecond"))
        }
        time => Ok(Some(time)),
    }
}

/// A host name, an IP address, or a wildcard (`*`, `*.example.com`), in lower case.
pub fn host(text: &str) -> Result<String, String> {
    let lower = text.trim_end_matches('.').to_ascii_lowercase();
    if lower.parse::<std::net::IpAddr>().is_ok() || lower == "*" {
        return Ok(lower);
    }
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        Ok(lower)
    } else {
        Err(format!(
            "{text:?} is no host name: write a DNS name, or a wildcard such as *.example.com"
        ))
    }
}

/// A header's name in lower case.
pub fn header_name(text: &str) -> Result<String, String> {
    http::HeaderName::from_bytes(text.as_bytes())
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("{text:?} is no header name"))
}

/// A header's value.
pub fn header_value(text: &str) -> Result<String, String> {
    match http::HeaderValue::from_str(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is no header value: it holds control characters")),
    }
}

/// Checks the form of a regular expression: groups, classes and repetitions. Envoy rejects a whole
/// route table for one bad expression, so the common mistakes must be found here.
pub fn regex(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("{text:?} is no regular expression (RE2): {what}"));
    let (mut groups, mut may_repeat) = (0_usize, false);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                None => return wrong("it ends with a backslash"),
                Some('1'..='9') => return wrong("it has no back references"),
                Some(_) => may_repeat = true,
            },
            '(' => {
                if rest.peek() == Some(&'?') {
                    rest.next();
                    if !matches!(rest.peek(), Some(':' | 'P' | '<' | 'i' | 'm' | 's' | 'U' | '-')) {
                        return wrong("it has no look-around");
                    }
                    if rest.next() == Some('<') && matches!(rest.peek(), Some('=' | '!')) {
                        return wrong("it has no look-around");
                    }
                }
                groups += 1;
                may_repeat = false;
            }
            ')' => {
                let Some(open) = groups.checked_sub(1) else {
                    return wrong("a parenthesis is closed that was not opened");
                };
                groups = open;
                may_repeat = true;
            }
            '[' => {
                if !skip_class(&mut rest) {
                    return wrong("a bracket is not closed");
                }
                may_repeat = true;
            }
            '*' | '+' | '?' if !may_repeat => return wrong("there is nothing to repeat"),
            '|' | '^' => may_repeat = false,
            _ => may_repeat = true,
        }
    }
    if groups > 0 { wrong("a parenthesis is not closed") } else { Ok(text.to_owned()) }
}

/// Skips the rest of a character class; whether it is closed.
fn skip_class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> bool {
    rest.next_if_eq(&'^');
    // A bracket right at the beginning stands for itself.
    rest.next_if_eq(&']');
    while let Some(c) = rest.next() {
        match c {
            ']' => return true,
            '\\' => {
                rest.next();
            }
            '[' if rest.peek() == Some(&':') => while rest.next_if(|c| *c != ']').is_some() {},
            _ => {}
        }
        if c == '[' && rest.peek() == Some(&']') {
            rest.next();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("0", 0),
            ("1.5s", 1500),
            ("1h2m3s4ms", 3_723_004),
            (".5m", 30_000),
            ("100ms", 100),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1d", "1s5", "1..2s", "9999999999999h", "NaNs", "1 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn zero_is_no_timeout_and_less_than_a_millisecond_is_an_error() {
        assert_eq!(timeout("0s"), Ok(None));
        assert!(timeout("10us").is_err());
    }

    #[test]
    fn hosts() {
        for text in
            ["*", "*.example.com", "cart", "Cart.Shop.SVC.cluster.local.", "10.0.0.1", "::1"]
        {
            assert!(host(text).is_ok(), "{text}");
        }
        for text in ["", "a b", "*example.com", "a..b", "-a.com", "http://a", "a/b", "a:80"] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn regular_expressions() {
        for text in [
            "",
            ".*",
            "^/v[0-9]+/(a|b)$",
            r"\d{2,3}\(",
            "[]a]",
            "[^]]*",
            "[[:alpha:]]+",
            "(?i)x",
            "(?P<n>x)?",
            "a*?",
            r"[\]]",
        ] {
            assert!(regex(text).is_ok(), "{text}: {:?}", regex(text));
        }
        for text in ["(", ")", "[a", "*a", "a|*", r"a\", "(?=a)", "(?<!a)", r"(a)\1", "(+)"] {
            assert!(regex(text).is_err(), "{text}");
        }
    }
}
