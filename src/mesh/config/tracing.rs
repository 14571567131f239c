//! What of requests is traced, and where to.

use std::collections::BTreeMap;

use super::{
    MESH, in_range,
    providers::{Kind, Provider, Providers},
};
use crate::{
    api::meshwright::{MeshSettings, mesh::CustomTag},
    mesh::{
        TagValue, Tracing,
        report::{OrReport, Path, Report},
        syntax,
    },
};

pub(super) fn convert(
    mesh: &MeshSettings,
    providers: &Providers,
    report: &mut Report,
) -> Option<Tracing> {
    let path = MESH.field("defaultProviders");
    let path = path.field("tracing");
    let wanted = &mesh.default_providers.tracing;
    if wanted.len() > 1 {
        let message = "a proxy reports to one tracing provider: name one";
        report.error(&path.index(1), "TooMany", message);
    }
    let named = providers.named(wanted, Kind::Tracing, &path, report);
    let path = MESH.field("tracing");
    let sampling = sampling(mesh.tracing.sampling)
        .or_report(report, &path.field("sampling"), "OutOfRange")
        .unwrap_or(100);
    let length = mesh.tracing.max_path_tag_length;
    let length = in_range(length, 1..=65536, &path.field("maxPathTagLength"), report);
    let tags = tags(&mesh.tracing.custom_tags, &path.field("customTags"), report);
    let Some(Provider::Tracing { tracer, max_path_length }) = named.first() else { return None };
    mesh.enable_tracing.then(|| Tracing {
        tracer: tracer.clone(),
        sampling,
        tags,
        max_path_length: max_path_length.or(length).unwrap_or(256),
    })
}

/// Hundredths of a percent.
fn sampling(percent: f64) -> Result<u32, String> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!("{percent} is no percentage: it must be between 0 and 100"));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 ≤ percent ≤ 100, which fits"
    )]
    let hundredths = (percent * 100.0).round() as u32;
    Ok(hundredths)
}

fn tags(
    tags: &BTreeMap<String, CustomTag>,
    path: &Path<'_>,
    report: &mut Report,
) -> BTreeMap<String, TagValue> {
    let mut read = BTreeMap::new();
    for (name, tag) in tags {
        let value = value(name, tag).or_report(report, &path.key(name), "InvalidTag");
        read.extend(value.map(|value| (name.clone(), value)));
    }
    read
}

fn value(tag_name: &str, tag: &CustomTag) -> Result<TagValue, String> {
    if tag_name.is_empty() {
        return Err("give the tag a name".to_owned());
    }
    match (&tag.literal, &tag.environment, &tag.header) {
        (Some(literal), None, None) if literal.value.is_empty() => {
            Err("give the tag a value".to_owned())
        }
        (Some(literal), None, None) => Ok(TagValue::Literal(literal.value.clone())),
        (None, Some(environment), None) => {
            let name = &environment.name;
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{name:?} is no name of an environment variable"));
            }
            let default = environment.default_value.clone();
            Ok(TagValue::Environment { name: name.clone(), default })
        }
        (None, None, Some(header)) => {
            let name = syntax::header_name(&header.name)?;
            Ok(TagValue::Header { name, default: header.default_value.clone() })
        }
        _ => Err("give one of literal, environment and header".to_owned()),
    }
}
