//! Documents of YAML and JSON files, with the text that they were read from: what is not changed is
//! written as it was.

use serde_json::Value;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

/// One document of a file.
#[derive(Clone, Debug)]
pub struct Document {
    /// Name of the file.
    pub file: String,
    /// Position in the file, from 1, comments alone not counted.
    pub number: usize,
    pub value: Value,
    text: String,
    is_json: bool,
    changed: bool,
}

/// A file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{file}: document {number}, line {line}: {problem}")]
pub struct Broken {
    file: String,
    number: usize,
    line: u64,
    problem: String,
}

impl Document {
    /// Sets what stands in its place.
    pub fn replace(&mut self, value: Value) {
        self.changed |= self.value != value;
        self.value = value;
    }

    fn written(&self) -> Result<String, serde_saphyr::SerializeError> {
        if !self.changed {
            return Ok(self.text.clone());
        }
        if self.is_json {
            let space = &self.text[..self.text.len() - self.text.trim_start().len()];
            // A value always has a JSON form.
            let json = serde_json::to_string_pretty(&self.value).unwrap_or_default();
            let end = &self.text[self.text.trim_end().len()..];
            return Ok(format!("{space}{json}{end}"));
        }
        let mut text = head(&self.text);
        text.push_str(&serde_saphyr::to_string(&self.value)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if self.text.lines().any(|line| is_marker(line, "...")) {
            text.push_str("...\n");
        }
        Ok(text)
    }
}

/// The documents of a file.
pub fn read(file: &str, text: &str) -> Result<Vec<Document>, Broken> {
    if let Some(documents) = json(file, text) {
        return Ok(documents);
    }
    let mut documents: Vec<Document> = Vec::new();
    let (mut number, mut line) = (0, 0);
    for piece in pieces(text) {
        let value = if is_blank(piece) {
            Value::Null
        } else {
            number += 1;
            parse(piece).map_err(|_| broken(file, number, line, piece))?
        };
        documents.push(Document {
            file: file.to_owned(),
            number,
            value,
            text: piece.to_owned(),
            is_json: false,
            changed: false,
        });
        line += piece.lines().count();
    }
    Ok(documents)
}

/// All documents as one text: JSON values one after the other, or else YAML, in which JSON values are
/// documents like others.
pub fn write(documents: &[Document]) -> Result<String, serde_saphyr::SerializeError> {
    let all_json = documents.iter().all(|document| document.is_json);
    let mut all = String::new();
    let mut file = None;
    for document in documents {
        let text = document.written()?;
        let is_first_of_file = file.is_some_and(|file| file != &document.file);
        let is_json_among_yaml = document.is_json && !all_json;
        if !all.is_empty() && (is_first_of_file || is_json_among_yaml) {
            if !all.ends_with('\n') {
                all.push('\n');
            }
            if !all_json && !starts_document(&text) {
                all.push_str("---\n");
            }
        }
        all.push_str(if is_json_among_yaml { text.trim_start() } else { &text });
        file = Some(&document.file);
    }
    Ok(all)
}

/// JSON values one after the other; none where it is not JSON throughout.
fn json(file: &str, text: &str) -> Option<Vec<Document>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut documents: Vec<Document> = Vec::new();
    let mut start = 0;
    while let Some(value) = values.next() {
        let value = value.ok()?;
        let end = values.byte_offset();
        documents.push(Document {
            file: file.to_owned(),
            number: documents.len() + 1,
            value,
            text: text.get(start..end)?.to_owned(),
            is_json: true,
            changed: false,
        });
        start = end;
    }
    documents.last_mut()?.text.push_str(text.get(start..)?);
    Some(documents)
}

/// Cuts YAML before each `---` and after each `...`. At the start of a line these are never content:
/// YAML forbids it even inside quotes.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut end) = (0, 0);
    for line in text.split_inclusive('\n') {
        if is_marker(line, "---") && end > start {
            pieces.push(&text[start..end]);
            start = end;
        }
        end += line.len();
        if is_marker(line, "...") {
            pieces.push(&text[start..end]);
            start = end;
        }
    }
    if end > start {
        pieces.push(&text[start..end]);
    }
    pieces
}

fn is_marker(line: &str, marker: &str) -> bool {
    let line = line.strip_prefix('\u{feff}').unwrap_or(line);
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// Nothing but comments and what belongs to the next document.
fn is_blank(piece: &str) -> bool {
    piece.lines().all(|line| {
        let content = line.strip_prefix('\u{feff}').unwrap_or(line);
        let content = if is_marker(content, "---") || is_marker(content, "...") {
            &content[3..]
        } else {
            content
        };
        let content = content.trim_start();
        content.is_empty() || content.starts_with('#') || line.starts_with('%')
    })
}

/// The marker and the comments at the top of a document.
fn head(piece: &str) -> String {
    let is_head = |line: &&str| {
        let rest = if is_marker(line, "---") { &line[3..] } else { line };
        let rest = rest.trim();
        rest.is_empty() || rest.starts_with('#')
    };
    let head: String = piece.split_inclusive('\n').take_while(is_head).collect();
    let has_marker = piece.lines().any(|line| is_marker(line, "---"));
    if has_marker && !head.lines().any(|line| is_marker(line, "---")) {
        // What follows the marker on its line is content.
        return format!("{head}---\n");
    }
    head
}

/// Whether a text says by itself that a new document begins.
fn starts_document(text: &str) -> bool {
    let content = text.lines().find(|line| {
        let line = line.trim();
        !(line.is_empty() || line.starts_with('#') || line.starts_with('%'))
    });
    content.is_none_or(|line| is_marker(line, "---"))
}

/// Reads YAML as kubectl does, which is by the rules of YAML 1.1 where the versions differ.
fn parse(text: &str) -> Result<Value, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        legacy_octal_numbers: true,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// Says where in the file the piece is broken. It is read once more behind as many empty lines as
/// there are above it, so that the parser counts as the reader does.
fn broken(file: &str, number: usize, above: usize, piece: &str) -> Broken {
    let (line, problem) = match parse(&format!("{}{piece}", "\n".repeat(above))) {
        Err(error) => {
            let line = error.location().map_or(0, |location| location.line());
            (line, error.without_snippet().to_string())
        }
        Ok(_) => (above as u64 + 1, "not a YAML document".to_owned()),
    };
    Broken { file: file.to_owned(), number, line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "# made by hand\n\
        a: 1   # one\n\
        ---\n\
        # Source: chart/b.yaml\n\
        b: &x [1, 2]\n\
        c: *x\n\
        ---\n\
        # nothing here\n\
        --- {d: 'it''s'}\n\
        ...\n\
        e: |\n  ---\n  ...\n";

    #[test]
    fn what_is_not_changed_is_written_as_it_was() {
        for text in
            [MANIFEST, "", "\n\n", "a: 1", "%YAML 1.1\n---\na: 1\n", "{\"a\": 1}\n{\"b\":2} \n"]
        {
            assert_eq!(write(&read("x", text).unwrap()).unwrap(), text);
        }
        let values: Vec<_> = read("x", MANIFEST)
            .unwrap()
            .into_iter()
            .map(|d| (d.number, d.value.to_string()))
            .collect();
        assert_eq!(
            values,
            [
                (1, r#"{"a":1}"#.to_owned()),
                (2, r#"{"b":[1,2],"c":[1,2]}"#.to_owned()),
                (2, "null".to_owned()),
                (3, r#"{"d":"it's"}"#.to_owned()),
                (4, r#"{"e":"---\n...\n"}"#.to_owned()),
            ]
        );
    }

    #[test]
    fn what_is_changed_keeps_its_place_and_the_comments_above_it() {
        let mut documents = read("x", MANIFEST).unwrap();
        for document in documents.iter_mut().filter(|document| !document.value.is_null()) {
            document.replace(serde_json::json!({"new": "yes"}));
        }
        assert_eq!(
            write(&documents).unwrap(),
            "# made by hand\nnew: \"yes\"\n---\n# Source: chart/b.yaml\nnew: \"yes\"\n---\n# nothing here\n---\nnew: \"yes\"\n...\nnew: \"yes\"\n"
        );
    }

    #[test]
    fn files_are_kept_apart() {
        let all = |texts: &[&str]| {
            let read = |(index, text): (usize, &&str)| read(&index.to_string(), text).unwrap();
            write(&texts.iter().enumerate().flat_map(read).collect::<Vec<_>>()).unwrap()
        };
        assert_eq!(all(&["a: 1", "b: 2\n", "---\nc: 3\n"]), "a: 1\n---\nb: 2\n---\nc: 3\n");
        assert_eq!(all(&["{\"a\": 1}", "{\"b\": 2}"]), "{\"a\": 1}\n{\"b\": 2}");
        assert_eq!(
            all(&["{\"a\": 1}\n{\"b\": 2}\n", "c: 3\n"]),
            "{\"a\": 1}\n---\n{\"b\": 2}\n---\nc: 3\n"
        );
    }

    #[test]
    fn broken_files_are_named_with_document_and_line() {
        let error = read("web.yaml", "a: 1\n---\nb:\n  - c\n d: [\n").unwrap_err().to_string();
        assert!(error.starts_with("web.yaml: document 2, line "), "{error}");
        let line: usize = error["web.yaml: document 2, line ".len()..]
            .split(':')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        assert!((5..=6).contains(&line), "{error}");
    }

    #[test]
    fn numbers_and_words_are_read_as_kubectl_reads_them() {
        let text = "mode: 0644\nswitch: yes\nversion: \"1.20\"\na: 1\na: 2\n";
        let value = &read("x", text).unwrap()[0].value;
        assert_eq!(
            value,
            &serde_json::json!({"mode": 0o644, "switch": true, "version": "1.20", "a": 2})
        );
    }

    proptest::proptest! {
        #[test]
        fn any_string_survives(text in "(\\PC|[ \n\t\r'\":#&*!|>%@`{}\\[\\],?0-9~=<-]){0,24}") {
            let mut document = read("x", "a: 1\n").unwrap().remove(0);
            let value = serde_json::json!({"args": [text.clone(), {"k": text.clone()}], text.clone(): 1});
            document.replace(value.clone());
            let written = write(&[document]).unwrap();
            proptest::prop_assert_eq!(&read("x", &written).unwrap()[0].value, &value, "{}", written);
        }
    }
}
