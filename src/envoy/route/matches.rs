//! What a route matches, and the rewriting of what it matched.

use envoy_types::pb::envoy::{
    config::route::v3::{
        HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
        query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
    },
    r#type::matcher::v3::{RegexMatchAndSubstitute, StringMatcher, string_matcher::MatchPattern},
};

use crate::{
    envoy::message::{no, regex, string},
    mesh::{HttpMatch, PathMatch, PathRewrite, StringMatch},
};

pub(super) fn route_match(m: &HttpMatch) -> RouteMatch {
    let pseudo = |name: &str, m: Option<&StringMatch>| m.map(|m| header(name, m));
    let headers = pseudo(":method", m.method.as_ref())
        .into_iter()
        .chain(pseudo(":authority", m.authority.as_ref()))
        .chain(m.headers.iter().map(|(name, m)| header(name, m)));
    RouteMatch {
        path_specifier: Some(path(m.path.as_ref())),
        case_sensitive: m.ignore_path_case.then(no).flatten(),
        headers: headers.collect(),
        query_parameters: m.query.iter().map(|(name, m)| query(name, m)).collect(),
        ..RouteMatch::default()
    }
}

fn path(path: Option<&PathMatch>) -> PathSpecifier {
    match path {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(PathMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(PathMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(PathMatch::ElementPrefix(prefix)) => match elements(prefix) {
            "" => PathSpecifier::Prefix("/".to_owned()),
            elements => PathSpecifier::PathSeparatedPrefix(elements.to_owned()),
        },
        Some(PathMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern.clone())),
    }
}

/// Envoy refuses a separated prefix that ends in a slash.
fn elements(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// The matcher of a value; `None` where it needs to be present only.
fn value(m: &StringMatch) -> Option<StringMatcher> {
    let pattern = match m {
        StringMatch::Exact(value) => MatchPattern::Exact(value.clone()),
        // Envoy refuses an empty prefix; everything begins with it.
        StringMatch::Prefix(value) if value.is_empty() => return None,
        StringMatch::Prefix(value) => MatchPattern::Prefix(value.clone()),
        StringMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern.clone())),
        StringMatch::Present => return None,
    };
    Some(string(pattern))
}

fn header(name: &str, m: &StringMatch) -> HeaderMatcher {
    let specifier = value(m)
        .map_or(HeaderMatchSpecifier::PresentMatch(true), HeaderMatchSpecifier::StringMatch);
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

fn query(name: &str, m: &StringMatch) -> QueryParameterMatcher {
    let specifier = value(m).map_or(
        QueryParameterMatchSpecifier::PresentMatch(true),
        QueryParameterMatchSpecifier::StringMatch,
    );
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(specifier),
    }
}

pub(super) enum Rewritten {
    Prefix(String),
    Regex(RegexMatchAndSubstitute),
}

/// How Envoy makes the new path of what `matched`.
pub(super) fn rewritten(matched: Option<&PathMatch>, rewrite: &PathRewrite) -> Rewritten {
    let (pattern, substitution) = match (rewrite, matched) {
        (PathRewrite::Full(path), _) => ("^/.*$".to_owned(), path.clone()),
        // Whole elements are replaced by whole elements: `/a` → `/` makes `/b` of `/a/b`, where
        // Envoy's prefix rewrite would make `//b`.
        (PathRewrite::Prefix(to), Some(PathMatch::ElementPrefix(from))) => {
            let (from, to) = (elements(from), elements(to));
            if !from.is_empty() && !to.is_empty() {
                return Rewritten::Prefix(to.to_owned());
            }
            (format!("^{}/*", escaped(from)), format!("{to}/"))
        }
        (PathRewrite::Prefix(to), _) => return Rewritten::Prefix(to.clone()),
    };
    Rewritten::Regex(RegexMatchAndSubstitute {
        pattern: Some(regex(pattern)),
        // `\1` would mean a group.
        substitution: substitution.replace('\\', "\\\\"),
    })
}

/// A regular expression (of RE2) for exactly this text.
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !matches!(c, '/' | '_' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(rewritten: Rewritten) -> String {
        match rewritten {
            Rewritten::Prefix(prefix) => prefix,
            Rewritten::Regex(r) => format!("{} → {}", r.pattern.unwrap().regex, r.substitution),
        }
    }

    #[test]
    fn elements_are_replaced_by_elements() {
        let element = |p: &str| Some(PathMatch::ElementPrefix(p.to_owned()));
        let prefix = |p: &str| PathRewrite::Prefix(p.to_owned());
        for (matched, rewrite, want) in [
            (element("/a"), prefix("/b"), "/b"),
            (element("/a/"), prefix("/b/"), "/b"),
            (element("/a.b"), prefix("/"), "^/a\\.b/* → /"),
            (element("/a"), prefix(""), "^/a/* → /"),
            (element("/"), prefix("/b"), "^/* → /b/"),
            (Some(PathMatch::Prefix("/a".into())), prefix("/"), "/"),
            (element("/a"), PathRewrite::Full("/x\\1".into()), "^/.*$ → /x\\\\1"),
        ] {
            assert_eq!(text(rewritten(matched.as_ref(), &rewrite)), want, "{matched:?}");
        }
    }

    #[test]
    fn the_root_is_no_separated_prefix() {
        for prefix in ["/", "//", ""] {
            let matched = PathMatch::ElementPrefix(prefix.to_owned());
            assert_eq!(path(Some(&matched)), PathSpecifier::Prefix("/".to_owned()));
        }
    }
}
