//! What the kubelet writes about the pod into files of the downward API.

use std::{collections::BTreeMap, io::ErrorKind, path::Path};

/// The pod's labels. Without the file, of an agent outside a cluster say, there are none.
pub(super) fn labels(folder: &Path) -> BTreeMap<String, String> {
    let file = folder.join("labels");
    match std::fs::read_to_string(&file) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "cannot read the pod's labels");
            BTreeMap::new()
        }
    }
}

/// One of the values in a text of such lines.
pub(super) fn value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().filter(|line| line.starts_with(key));
    lines.find_map(|text| line(text).filter(|(name, _)| name == key).map(|(_, value)| value))
}

/// Reads lines `key="value"`, whose values are escaped as Go's string literals.
fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<(String, String)> {
    let (key, value) = line.split_once('=')?;
    let value = value.strip_prefix('"')?.strip_suffix('"')?;
    Some((key.to_owned(), unescape(value)?))
}

fn unescape(text: &str) -> Option<String> {
    // Bytes, because Go escapes invalid UTF-8 byte by byte.
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let byte = match rest.next()? {
            'a' => 0x07,
            'b' => 0x08,
            'f' => 0x0c,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 0x0b,
            'x' => u8::try_from(hexadecimal(&mut rest, 2)?).ok()?,
            length @ ('u' | 'U') => {
                let digits = if length == 'u' { 4 } else { 8 };
                let c = char::from_u32(hexadecimal(&mut rest, digits)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            c @ ('\\' | '"' | '\'') => u8::try_from(c).ok()?,
            _ => return None,
        };
        bytes.push(byte);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn hexadecimal(chars: &mut std::str::Chars<'_>, digits: usize) -> Option<u32> {
    let text: String = chars.by_ref().take(digits).collect();
    // Not `from_str_radix` alone: it takes a sign and fewer digits.
    let whole = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(&text, 16).ok().filter(|_| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kubelets_lines() {
        let text = "app=\"cart\"\nexample.com/note=\"a \\\"b\\\" = \\\\ \\n \\u00fc \\xc3\\xbc ü\"\nempty=\"\"";
        let read = parse(text);
        assert_eq!(read["app"], "cart");
        assert_eq!(read["example.com/note"], "a \"b\" = \\ \n ü ü ü");
        assert_eq!(read["empty"], "");
    }

    #[test]
    fn leaves_out_what_is_no_line_of_the_kubelet() {
        for text in ["", "app", "app=cart", "app=\"", "app=\"\\q\"", "app=\"\\u12\"", "a=\"\\x\""] {
            assert!(parse(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn without_the_file_there_are_no_labels() {
        let folder = tempfile::tempdir().unwrap();
        assert!(labels(folder.path()).is_empty());
        std::fs::write(folder.path().join("labels"), "app=\"cart\"\n").unwrap();
        assert_eq!(labels(folder.path())["app"], "cart");
    }
}
