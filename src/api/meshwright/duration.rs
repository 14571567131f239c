//! Durations as Kubernetes and Istio write them: `90s`, `1h30m`, `500ms`.

use std::time::Duration;

/// Units with their seconds; those that begin like another stand before it.
const UNITS: [(&str, f64); 6] =
    [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads a duration; `None` for what is none, is negative, or is too long to be told. (kube's own
/// parser panics at the latter.)
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() || text.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (unit, each) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        seconds += number.parse::<f64>().ok()? * each;
        rest = &tail[unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations() {
        let millis = |text: &str| parse(text).map(|duration| duration.as_millis());
        for (text, want) in [
            ("0", 0),
            ("500ms", 500),
            ("1.5s", 1500),
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1m1s1ms", 61_001),
        ] {
            assert_eq!(millis(text), Some(want), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        let endless = format!("{}h", "9".repeat(400));
        for text in ["", "5", "s", "-5s", "5 s", "5d", "5s5", "1.2.3s", "1e9s", "µs", &endless] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
