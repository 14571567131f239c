//! Filters of HTTPRoute rules and backends.

use crate::{
    api::gateway::http_route as api,
    mesh::{
        HeaderChanges, PathRewrite, Redirect, Rewrite,
        report::{OrReport, Path, Report, Reported},
        syntax, text_match,
    },
};

const UNSUPPORTED: &str = "UnsupportedValue";

/// What the filters of one list come to.
#[derive(Debug, Default)]
pub struct Filters {
    /// Whether all of them can be honoured; the API forbids to serve requests otherwise.
    pub valid: bool,
    pub request_headers: HeaderChanges,
    pub response_headers: HeaderChanges,
    pub redirect: Option<Redirect>,
    pub rewrite: Option<Rewrite>,
}

/// All filters of a list.
pub fn all(list: &[api::Filter], path: &Path<'_>, report: &mut Report) -> Filters {
    let mut filters = Filters { valid: true, ..Filters::default() };
    for (i, filter) in list.iter().enumerate() {
        if !add(&mut filters, filter, &path.index(i), report) {
            filters.valid = false;
        }
    }
    if filters.redirect.is_some() && filters.rewrite.is_some() {
        let message = "has both RequestRedirect and URLRewrite: remove one of them; until then \
                       requests are answered with 500";
        report.error(path, UNSUPPORTED, message);
        filters.valid = false;
    }
    filters
}

fn add(filters: &mut Filters, filter: &api::Filter, path: &Path<'_>, report: &mut Report) -> bool {
    match filter.kind.as_str() {
        "RequestHeaderModifier" => {
            let path = path.field("requestHeaderModifier");
            let modifier = filter.request_header_modifier.as_ref();
            headers(&mut filters.request_headers, modifier, &path, report);
            true
        }
        "ResponseHeaderModifier" => {
            let path = path.field("responseHeaderModifier");
            let modifier = filter.response_header_modifier.as_ref();
            headers(&mut filters.response_headers, modifier, &path, report);
            true
        }
        "RequestRedirect" => {
            let redirect = filter.request_redirect.clone().unwrap_or_default();
            filters.redirect = redirect_to(&redirect, &path.field("requestRedirect"), report);
            filters.redirect.is_some()
        }
        "URLRewrite" => {
            let rewrite = filter.url_rewrite.clone().unwrap_or_default();
            filters.rewrite = rewrite_of(&rewrite, &path.field("urlRewrite"), report);
            filters.rewrite.is_some()
        }
        other => {
            let message = format!(
                "{other} is not supported in this version, so requests are answered with 500: \
                 remove the filter"
            );
            report.error(&path.field("type"), UNSUPPORTED, message);
            false
        }
    }
}

fn headers(
    changes: &mut HeaderChanges,
    modifier: Option<&api::HeaderModifier>,
    path: &Path<'_>,
    report: &mut Report,
) {
    let Some(modifier) = modifier else { return };
    let mut values = |list: &[api::HeaderValue], name: &str| -> Vec<(String, String)> {
        let path = path.field(name);
        let headers = list.iter().enumerate();
        headers
            .filter_map(|(i, h)| text_match::header(&h.name, &h.value, &path.index(i), report))
            .collect()
    };
    changes.set.extend(values(&modifier.set, "set"));
    changes.add.extend(values(&modifier.add, "add"));
    let path = path.field("remove");
    for (i, name) in modifier.remove.iter().enumerate() {
        let name = syntax::header_name(name).or_report(report, &path.index(i), UNSUPPORTED);
        changes.remove.extend(name);
    }
}

fn redirect_to(
    redirect: &api::RequestRedirect,
    path: &Path<'_>,
    report: &mut Report,
) -> Option<Redirect> {
    report.unsupported(path, &redirect.unsupported);
    let status = redirect.status_code.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        let message =
            "must be 301, 302, 303, 307 or 308; until then requests are answered with 500";
        report.error(&path.field("statusCode"), UNSUPPORTED, message);
        return None;
    }
    if redirect.scheme.as_deref().is_some_and(|scheme| !["http", "https"].contains(&scheme)) {
        let message = "must be http or https; until then requests are answered with 500";
        report.error(&path.field("scheme"), UNSUPPORTED, message);
        return None;
    }
    Some(Redirect {
        scheme: redirect.scheme.clone(),
        authority: redirect.hostname.clone(),
        port: redirect.port,
        path: modified_path(redirect.path.as_ref(), &path.field("path"), report).ok()?,
        status,
    })
}

fn rewrite_of(rewrite: &api::UrlRewrite, path: &Path<'_>, report: &mut Report) -> Option<Rewrite> {
    report.unsupported(path, &rewrite.unsupported);
    Some(Rewrite {
        path: modified_path(rewrite.path.as_ref(), &path.field("path"), report).ok()?,
        authority: rewrite.hostname.clone(),
    })
}

/// `None` where the path stays as it is.
fn modified_path(
    modifier: Option<&api::PathModifier>,
    path: &Path<'_>,
    report: &mut Report,
) -> Result<Option<PathRewrite>, Reported> {
    let Some(modifier) = modifier else { return Ok(None) };
    let full = modifier.replace_full_path.clone().unwrap_or_else(|| "/".to_owned());
    let prefix = modifier.replace_prefix_match.clone().unwrap_or_else(|| "/".to_owned());
    match modifier.kind.as_str() {
        "ReplaceFullPath" => Ok(Some(PathRewrite::Full(full))),
        "ReplacePrefixMatch" => Ok(Some(PathRewrite::Prefix(prefix))),
        other => {
            let message = format!("{other} is not known, so requests are answered with 500");
            report.error(&path.field("type"), UNSUPPORTED, message);
            Err(Reported)
        }
    }
}
