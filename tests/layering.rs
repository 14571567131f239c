//! Holds the pure stages to their word: no client, runtime, clock, environment or files in `mesh`,
//! `plan` and `envoy`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a pure stage may not name, and why.
const FORBIDDEN: [(&str, &str); 12] = [
    ("kube::Client", "the API server is the watch stage's"),
    ("kube::client", "the API server is the watch stage's"),
    ("kube::Api", "the API server is the watch stage's"),
    ("kube::runtime", "the API server is the watch stage's"),
    ("kube_runtime", "the API server is the watch stage's"),
    ("tokio", "stages are plain functions"),
    ("tonic", "stages are plain functions"),
    ("std::time::SystemTime", "time is an input"),
    ("std::time::Instant", "time is an input"),
    ("std::env", "the environment is an input"),
    ("std::fs", "files are inputs"),
    ("Timestamp::now", "time is an input"),
];

#[test]
fn pure_stages_stay_pure() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for stage in ["mesh", "plan", "envoy"] {
        let mut files = vec![src.join(stage).with_extension("rs")];
        collect(&src.join(stage), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let names = names(&text);
            for (forbidden, reason) in FORBIDDEN {
                let begins = |name: &String| {
                    name.strip_prefix(forbidden)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
                };
                if names.iter().any(begins) {
                    found.push(format!("{} names {forbidden}: {reason}", file.display()));
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("a folder of sources").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// All paths of a file's `use` items with their braces resolved, and all paths in its code.
fn names(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut names = Vec::new();
    for item in code.split("use ").skip(1) {
        if let Some((tree, _)) = item.split_once(';') {
            expand("", &tree.split_whitespace().collect::<String>(), &mut names);
        }
    }
    let part_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    names.extend(code.split(|c| !part_of_path(c)).filter(|n| n.contains("::")).map(str::to_owned));
    names
}

/// `a::{b, c::{d}}` → `a::b`, `a::c::d`.
fn expand(prefix: &str, tree: &str, names: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        names.push(format!("{prefix}{tree}"));
        return;
    };
    let prefix = format!("{prefix}{head}");
    let body = rest.strip_suffix('}').unwrap_or(rest);
    let (mut depth, mut start) = (0_usize, 0);
    for (i, c) in body.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                expand(&prefix, &body[start..i], names);
                start = i + 1;
            }
            _ => {}
        }
    }
    if start < body.len() {
        expand(&prefix, &body[start..], names);
    }
}

#[test]
fn sees_through_braces() {
    let text = "use std::{collections::BTreeMap, time::{Duration, Instant}}; // use tokio::x;\n\
                fn f() { kube::Client::try_default() }";
    let names = names(text);
    assert!(names.contains(&"std::time::Instant".to_owned()), "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("kube::Client")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("tokio")), "{names:?}");
}
