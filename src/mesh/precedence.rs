//! Which rule comes first where several routings hold for one host.

use std::cmp::Reverse;

use super::{HttpMatch, HttpRule, PathMatch};

/// The Gateway API's order of conditions: an exact path, then the longest prefix, a method, the
/// most headers, the most query parameters. Smaller is earlier.
pub fn of(condition: &HttpMatch) -> impl Ord + use<> {
    let (kind, length) = match &condition.path {
        Some(PathMatch::Exact(path)) => (0, path.len()),
        // The API leaves regular expressions to implementations; they are more particular than
        // a prefix, as a rule.
        Some(PathMatch::Regex(path)) => (1, path.len()),
        Some(PathMatch::ElementPrefix(path) | PathMatch::Prefix(path)) => (2, path.len()),
        None => (2, 1),
    };
    (
        kind,
        Reverse(length),
        condition.method.is_none(),
        Reverse(condition.headers.len()),
        Reverse(condition.query.len()),
    )
}

/// Sorts rules of the Gateway API, each of which has at most one condition (as [`super::build`]
/// makes them); equals stay in their order.
pub fn sort(rules: &mut [HttpRule]) {
    let everything = HttpMatch::default();
    rules.sort_by_cached_key(|rule| of(rule.matches.first().unwrap_or(&everything)));
}
