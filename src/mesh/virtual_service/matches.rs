//! Conditions of VirtualService rules.

use std::collections::BTreeMap;

use crate::{
    api::istio::networking::virtual_service as api,
    mesh::{
        HttpMatch, MatchGateway, PathMatch, StringMatch,
        report::{OrReport, Path, Report, Reported},
        syntax,
        text_match::{NEVER_MATCHES, string_match},
    },
};

/// All alternatives of a rule; `None` where each of them has a condition that cannot be judged, as
/// an empty list would match everything.
pub fn all(
    list: &[api::HttpMatch],
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<HttpMatch>> {
    let matches: Vec<_> = list
        .iter()
        .enumerate()
        .filter_map(|(i, alternative)| one(alternative, &path.index(i), report))
        .collect();
    (list.is_empty() || !matches.is_empty()).then_some(matches)
}

/// One alternative. Every condition is looked at, so that all mistakes are reported at once.
fn one(alternative: &api::HttpMatch, path: &Path<'_>, report: &mut Report) -> Option<HttpMatch> {
    for name in alternative.unsupported.keys() {
        // A statistics prefix is no condition, so the alternative works without it.
        let consequence =
            if name == "statPrefix" { "it has no effect, remove it" } else { NEVER_MATCHES };
        report.unsupported_field(&path.field(name), consequence);
    }
    let judged = alternative.unsupported.keys().all(|name| name == "statPrefix");
    let uri = optional(alternative.uri.as_ref(), |uri| path_match(uri, &path.field("uri"), report));
    let text = |text: &Option<api::StringMatch>, name: &str, report: &mut Report| {
        optional(text.as_ref(), |text| not_empty(text, &path.field(name), report))
    };
    let method = text(&alternative.method, "method", report);
    let authority = text(&alternative.authority, "authority", report);
    let headers = headers(&alternative.headers, &path.field("headers"), report);
    let query = query(&alternative.query_params, &path.field("queryParams"), report);
    let gateways = gateways(&alternative.gateways, &path.field("gateways"), report);
    let uri = uri.ok()?;
    let found = HttpMatch {
        ignore_path_case: alternative.ignore_uri_case.unwrap_or_default()
            && !matches!(uri, Some(PathMatch::Regex(_))),
        path: uri,
        method: method.ok()?,
        authority: authority.ok()?,
        headers: headers?,
        query: query?,
        port: alternative.port,
        gateways: gateways?,
    };
    judged.then_some(found)
}

/// `None` where there is no condition.
fn optional<T, U>(
    value: Option<T>,
    convert: impl FnOnce(T) -> Option<U>,
) -> Result<Option<U>, Reported> {
    match value {
        None => Ok(None),
        Some(value) => convert(value).map(Some).ok_or(Reported),
    }
}

fn path_match(uri: &api::StringMatch, path: &Path<'_>, report: &mut Report) -> Option<PathMatch> {
    not_empty(uri, path, report).map(|text| match text {
        StringMatch::Exact(text) => PathMatch::Exact(text),
        StringMatch::Prefix(text) => PathMatch::Prefix(text),
        StringMatch::Regex(text) => PathMatch::Regex(text),
        StringMatch::Present => PathMatch::Prefix("/".to_owned()),
    })
}

fn not_empty(text: &api::StringMatch, path: &Path<'_>, report: &mut Report) -> Option<StringMatch> {
    let found = string_match(text, path, report)?;
    if found == StringMatch::Present {
        report.error(path, "InvalidMatch", "needs one of exact, prefix and regex");
        return None;
    }
    Some(found)
}

fn headers(
    headers: &BTreeMap<String, api::StringMatch>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<(String, StringMatch)>> {
    let mut out = Some(Vec::new());
    for (name, text) in headers {
        let path = path.key(name);
        let name = if name.starts_with('@') {
            report.unsupported_field(&path, NEVER_MATCHES);
            None
        } else {
            syntax::header_name(name).or_report(report, &path, "InvalidHeader")
        };
        let text = string_match(text, &path, report);
        push(&mut out, name.zip(text));
    }
    out
}

fn query(
    parameters: &BTreeMap<String, api::StringMatch>,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Vec<(String, StringMatch)>> {
    let mut out = Some(Vec::new());
    for (name, text) in parameters {
        let text = string_match(text, &path.key(name), report);
        push(&mut out, text.map(|text| (name.clone(), text)));
    }
    out
}

fn gateways(names: &[String], path: &Path<'_>, report: &mut Report) -> Option<Vec<MatchGateway>> {
    let mut out = Some(Vec::new());
    for (i, name) in names.iter().enumerate() {
        let gateway = if name == super::MESH {
            Some(MatchGateway::Mesh)
        } else {
            super::gateway(name, &report.object.namespace)
                .or_report(report, &path.index(i), "InvalidGateway")
                .map(MatchGateway::Gateway)
        };
        push(&mut out, gateway);
    }
    out
}

/// Collects while all is well: one wrong condition makes the whole list wrong.
fn push<T>(list: &mut Option<Vec<T>>, item: Option<T>) {
    match (list.as_mut(), item) {
        (Some(items), Some(item)) => items.push(item),
        _ => *list = None,
    }
}
