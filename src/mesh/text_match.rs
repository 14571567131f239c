//! Istio's StringMatch and header operations → the mesh's.

use std::collections::BTreeMap;

use super::{
    HeaderChanges, StringMatch,
    report::{OrReport, Path, Report},
    syntax,
};
use crate::api::istio::networking::virtual_service as api;

/// One condition; `Present` where the object is empty, `None` (reported) where it is wrong.
pub fn string_match(
    text: &api::StringMatch,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<StringMatch> {
    if !text.unsupported.is_empty() {
        for name in text.unsupported.keys() {
            report.unsupported_field(&path.field(name), NEVER_MATCHES);
        }
        return None;
    }
    match (&text.exact, &text.prefix, &text.regex) {
        (None, None, None) => Some(StringMatch::Present),
        (Some(exact), None, None) => Some(StringMatch::Exact(exact.clone())),
        (None, Some(prefix), None) => Some(StringMatch::Prefix(prefix.clone())),
        (None, None, Some(regex)) => syntax::regex(regex)
            .or_report(report, &path.field("regex"), "InvalidRegex")
            .map(StringMatch::Regex),
        _ => {
            report.error(path, "InvalidMatch", "has more than one of exact, prefix and regex");
            None
        }
    }
}

/// What follows from a condition that cannot be judged: to leave it out would match more than asked.
pub const NEVER_MATCHES: &str = "this alternative never matches, remove the condition";

/// Header changes of one direction.
pub fn header_changes(
    operations: Option<&api::HeaderOperations>,
    path: &Path<'_>,
    report: &mut Report,
) -> HeaderChanges {
    let Some(operations) = operations else { return HeaderChanges::default() };
    report.unsupported(path, &operations.unsupported);
    let remove = path.field("remove");
    HeaderChanges {
        set: header_values(&operations.set, &path.field("set"), report),
        add: header_values(&operations.add, &path.field("add"), report),
        remove: operations
            .remove
            .iter()
            .enumerate()
            .filter_map(|(i, name)| {
                syntax::header_name(name).or_report(report, &remove.index(i), "InvalidHeader")
            })
            .collect(),
    }
}

fn header_values(
    headers: &BTreeMap<String, String>,
    path: &Path<'_>,
    report: &mut Report,
) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| header(name, value, &path.key(name), report))
        .collect()
}

/// One header with its value.
pub fn header(
    name: &str,
    value: &str,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<(String, String)> {
    // Envoy refuses to change these by header operations, and with them the whole route table.
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        let message =
            format!("{name:?} cannot be changed here: use rewrite.uri or rewrite.authority");
        report.error(path, "InvalidHeader", message);
        return None;
    }
    let name = syntax::header_name(name).or_report(report, path, "InvalidHeader")?;
    let value = syntax::header_value(value).or_report(report, path, "InvalidHeader")?;
    Some((name, value))
}
