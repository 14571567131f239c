//! Query strings: the little of `application/x-www-form-urlencoded` that the fan-out needs.

/// Every value of the named parameters, decoded, in the order in which they stand.
pub fn values(query: &str, names: &[&str]) -> Vec<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| names.contains(name))
        .map(|(_, value)| decode(value))
        .collect()
}

/// Undoes percent-encoding; what is not a valid escape stays as it stands.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_urls_survive_one_decoding() {
        let query = "url=http://a/call%3Furl%3Dtcp://b:9000&x=1&target=grpc://c:50051";
        assert_eq!(
            values(query, &["url", "target"]),
            ["http://a/call?url=tcp://b:9000", "grpc://c:50051"]
        );
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%41"), "%zzA");
        assert_eq!(decode("é%"), "é%");
    }
}
