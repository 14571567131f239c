//! Providers of authorization: checked, so that they are ready when something may refer to them.

use super::{Targets, header_names, positive, url_path};
use crate::{
    api::meshwright::mesh::{BodyInCheck, ExtAuthzGrpc, ExtAuthzHttp},
    mesh::{
        report::{OrReport, Path, Report},
        syntax,
    },
};

pub(super) fn http(
    http: &ExtAuthzHttp,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) {
    targets.find(&http.service, http.port, false, path, report);
    common(http.timeout.as_ref(), &http.status_on_error, path, report);
    if !http.path_prefix.is_empty() {
        url_path(&http.path_prefix).or_report(report, &path.field("pathPrefix"), "InvalidPath");
    }
    let request = &http.include_request_headers_in_check;
    header_names(request, &path.field("includeRequestHeadersInCheck"), report);
    let additional = path.field("includeAdditionalHeadersInCheck");
    for (name, value) in &http.include_additional_headers_in_check {
        let header = syntax::header_name(name).and_then(|_| syntax::header_value(value));
        header.or_report(report, &additional.key(name), "InvalidHeader");
    }
    for (field, patterns) in [
        ("headersToUpstreamOnAllow", &http.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &http.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &http.headers_to_downstream_on_allow),
    ] {
        let path = path.field(field);
        for (index, pattern) in patterns.iter().enumerate() {
            name_pattern(pattern).or_report(report, &path.index(index), "InvalidHeader");
        }
    }
    body(http.include_request_body_in_check.as_ref(), path, report);
    if http.include_request_body_in_check.as_ref().is_some_and(|body| body.pack_as_bytes) {
        let body = path.field("includeRequestBodyInCheck");
        let message = "has a meaning for gRPC only: remove it";
        report.error(&body.field("packAsBytes"), "NoEffect", message);
    }
    unused(path, report);
}

pub(super) fn grpc(
    grpc: &ExtAuthzGrpc,
    targets: &Targets<'_>,
    path: &Path<'_>,
    report: &mut Report,
) {
    targets.find(&grpc.service, grpc.port, true, path, report);
    common(grpc.timeout.as_ref(), &grpc.status_on_error, path, report);
    body(grpc.include_request_body_in_check.as_ref(), path, report);
    unused(path, report);
}

fn common(timeout: Option<&String>, status: &str, path: &Path<'_>, report: &mut Report) {
    if let Some(timeout) = timeout {
        positive(timeout, &path.field("timeout"), report);
    }
    let is_status = status.parse::<u16>().is_ok_and(|code| (200..600).contains(&code));
    if !status.is_empty() && !is_status {
        let message = format!("{status:?} is no status of HTTP, such as 503");
        report.error(&path.field("statusOnError"), "InvalidStatus", message);
    }
}

fn body(body: Option<&BodyInCheck>, path: &Path<'_>, report: &mut Report) {
    if body.is_some_and(|body| body.max_request_bytes == 0) {
        let path = path.field("includeRequestBodyInCheck");
        let message = "say how many bytes of the body are sent at most";
        report.error(&path.field("maxRequestBytes"), "OutOfRange", message);
    }
}

/// A header's name, maybe with `*` at its beginning or end.
fn name_pattern(text: &str) -> Result<(), String> {
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if text == "*" { Ok(()) } else { syntax::header_name(inner).map(drop) }
}

fn unused(path: &Path<'_>, report: &mut Report) {
    let message = "nothing can ask this provider in this version: AuthorizationPolicies of action \
                   CUSTOM are not served yet";
    report.warning(path, "NotUsed", message);
}
