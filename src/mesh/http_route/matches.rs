//! Conditions of HTTPRoute rules.

use crate::{
    api::gateway::http_route as api,
    mesh::{
        HttpMatch, PathMatch, StringMatch,
        report::{OrReport, Path, Report, Reported},
        syntax,
        text_match::NEVER_MATCHES,
    },
};

const UNSUPPORTED: &str = "UnsupportedValue";

/// All conditions of a rule, one of which matches everything where none is given. Those that cannot
/// be judged are left out: such a rule may come to nothing.
pub fn all(list: &[api::RouteMatch], path: &Path<'_>, report: &mut Report) -> Vec<HttpMatch> {
    if list.is_empty() {
        return vec![HttpMatch::default()];
    }
    let conditions = list.iter().enumerate();
    conditions.filter_map(|(i, condition)| one(condition, &path.index(i), report)).collect()
}

fn one(condition: &api::RouteMatch, path: &Path<'_>, report: &mut Report) -> Option<HttpMatch> {
    for name in condition.unsupported.keys() {
        report.unsupported_field(&path.field(name), NEVER_MATCHES);
    }
    let path_value = match &condition.path {
        None => Ok(None),
        Some(value) => path_match(value, &path.field("path"), report),
    };
    let header = |name: &str| syntax::header_name(name);
    let headers = named(&condition.headers, &path.field("headers"), report, header);
    let verbatim = |name: &str| Ok(name.to_owned());
    let query = named(&condition.query_params, &path.field("queryParams"), report, verbatim);
    let found = HttpMatch {
        path: path_value.ok()?,
        method: condition.method.clone().map(StringMatch::Exact),
        headers: headers?,
        query: query?,
        ..HttpMatch::default()
    };
    condition.unsupported.is_empty().then_some(found)
}

/// `None` where every path matches.
fn path_match(
    value: &api::PathMatch,
    path: &Path<'_>,
    report: &mut Report,
) -> Result<Option<PathMatch>, Reported> {
    let text = value.value.as_deref().unwrap_or("/");
    match value.kind.as_deref() {
        None | Some("PathPrefix") => {
            let prefix = text.trim_end_matches('/');
            Ok((!prefix.is_empty()).then(|| PathMatch::ElementPrefix(prefix.to_owned())))
        }
        Some("Exact") => Ok(Some(PathMatch::Exact(text.to_owned()))),
        Some("RegularExpression") => syntax::regex(text)
            .or_report(report, &path.field("value"), UNSUPPORTED)
            .map(|regex| Some(PathMatch::Regex(regex)))
            .ok_or(Reported),
        Some(other) => {
            unknown(other, path, report);
            Err(Reported)
        }
    }
}

fn named(
    list: &[api::NamedMatch],
    path: &Path<'_>,
    report: &mut Report,
    check_name: impl Fn(&str) -> Result<String, String>,
) -> Option<Vec<(String, StringMatch)>> {
    let mut found: Vec<(String, StringMatch)> = Vec::new();
    let mut valid = true;
    for (i, item) in list.iter().enumerate() {
        let path = path.index(i);
        let name = check_name(&item.name).or_report(report, &path.field("name"), UNSUPPORTED);
        let text = match item.kind.as_deref() {
            None | Some("Exact") => Some(StringMatch::Exact(item.value.clone())),
            Some("RegularExpression") => syntax::regex(&item.value)
                .or_report(report, &path.field("value"), UNSUPPORTED)
                .map(StringMatch::Regex),
            Some(other) => {
                unknown(other, &path, report);
                None
            }
        };
        match name.zip(text) {
            None => valid = false,
            // Of several entries for one name the API takes the first.
            Some((name, _)) if found.iter().any(|(known, _)| *known == name) => {}
            Some(item) => found.push(item),
        }
    }
    valid.then_some(found)
}

fn unknown(kind: &str, path: &Path<'_>, report: &mut Report) {
    let message = format!("{kind} is not known, so this condition never matches");
    report.error(&path.field("type"), UNSUPPORTED, message);
}
