//! Durations as people write them: `200ms`, `2s`, `1m`.

use std::time::Duration;

/// Reads `200ms`, `1.5s`, `2m`; a number alone is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds_per_unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("`{text}` has no unit of us, ms, s or m")),
    };
    let number: f64 =
        number.parse().map_err(|_| format!("`{text}` does not start with a number"))?;
    Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, millis) in
            [("200ms", 200), ("2s", 2000), ("1.5s", 1500), ("1m", 60_000), ("3", 3000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert!(parse("soon").is_err());
        assert!(parse("5 parsecs").is_err());
    }
}
