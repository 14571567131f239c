//! What every annotation has in common: it changes what it names and nothing else, and refuses what
//! it cannot use by its name.

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::ObjectMeta;
use proptest::prelude::*;

use super::{
    BadOption, Options,
    pod::Chosen,
    table::{self, Annotation},
};

fn pod(annotations: &[(&str, &str)]) -> Pod {
    let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Pod {
        metadata: ObjectMeta {
            annotations: Some(annotations.iter().map(text).collect()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: None,
    }
}

fn chosen(annotations: &[(&str, &str)]) -> Result<Chosen, Vec<BadOption>> {
    Options::of_pod(&defaults(), &pod(annotations), true)
}

/// Other than what the examples ask for.
fn defaults() -> Options {
    Options {
        image: "registry.test/proxy:1".to_owned(),
        rewrite_probes: true,
        ..Options::default()
    }
}

/// The fields that an annotation may change; `None` for that which is for everything.
fn fields(annotation: &Annotation) -> Option<&'static [&'static str]> {
    Some(match annotation.name {
        "proxy-config" => return None,
        "proxy-image" => &["image"],
        "proxy-cpu" | "proxy-memory" | "proxy-cpu-limit" | "proxy-memory-limit" => &["resources"],
        "log-level" | "component-log-level" | "agent-log-level" => &["logs"],
        "user-volume" => &["volumes"],
        "user-volume-mount" => &["volume_mounts"],
        "bootstrap-override" => &["bootstrap_override"],
        "cap-net-bind-service" => &["net_bind_service"],
        "dns-capture" => &["dns_capture"],
        "native-sidecar" => &["native"],
        "rewrite-app-probes" => &["rewrite_probes"],
        "discovery-address" => &["discovery_address"],
        "proxy-image-type" | "readiness-application-ports" | "extra-stat-tags" => &[],
        "status-port" => &["readiness"],
        name if name.starts_with("readiness-") => &["readiness"],
        name if name.starts_with("stats-") => &["stats"],
        _ => &["redirection"],
    })
}

/// The names of the fields in which two differ, as `Debug` prints them.
fn differing(before: &Options, after: &Options) -> Vec<String> {
    let fields = |options: &Options| {
        let text = format!("{options:#?}");
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
            match line.split_once(": ") {
                Some((name, rest)) if !name.starts_with(' ') => {
                    fields.push((name.to_owned(), rest.to_owned()));
                }
                _ => fields.last_mut().unwrap().1.push_str(line),
            }
        }
        fields
    };
    let pairs = fields(before).into_iter().zip(fields(after));
    pairs.filter(|(before, after)| before != after).map(|((name, _), _)| name).collect()
}

#[test]
fn each_example_is_accepted_and_changes_what_it_names() {
    for annotation in table::all() {
        let name = format!("{}{}", table::PREFIX, annotation.name);
        let example = annotation.example.trim_matches('`');
        let mut given = vec![(name.as_str(), example)];
        // A mount needs its volume.
        if annotation.name == "user-volume-mount" {
            given.push(("meshwright.dev/user-volume", r#"{"certs":{"emptyDir":{}}}"#));
        }
        let Chosen { options, .. } = chosen(&given).unwrap_or_else(|bad| panic!("{bad:?}"));
        let changed = differing(&defaults(), &options);
        for field in fields(annotation).unwrap_or_default() {
            assert!(changed.contains(&(*field).to_owned()), "{name} changes {changed:?}");
        }
    }
}

#[test]
fn istios_names_mean_the_same() {
    for annotation in table::all().filter(|annotation| annotation.name != "user-volume-mount") {
        let example = annotation.example.trim_matches('`');
        let ours = format!("{}{}", table::PREFIX, annotation.name);
        let ours = chosen(&[(&ours, example)]).unwrap().options;
        for istio in annotation.istio {
            assert_eq!(chosen(&[(istio, example)]).unwrap().options, ours, "{istio}");
            let off = Options::of_pod(&defaults(), &pod(&[(istio, example)]), false).unwrap();
            assert_eq!(off.options, defaults(), "{istio} means nothing where it is switched off");
        }
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let bad = chosen(&[
        ("sidecar.istio.io/proxyCPU", "much"),
        ("meshwright.dev/log-level", "loud"),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "http"),
    ]);
    assert_eq!(bad.unwrap_err().len(), 3);
}

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[0-9,./*:a-zA-Z\"'{}\\[\\] \\n$&#-]{0,40}",
        "-?[0-9]{1,30}(m|Mi|s|h|e[0-9]{1,3})?",
        "\\{\"[a-z-]{0,12}\":(\\{\\}|\\[[0-9,]{0,5}\\]|\\{\"(mountPath|secret|x)\":[0-9\"/a{}]{0,6}\\})\\}",
        "(concurrency|proxyMetadata|image|drainDuration|runtimeValues|[a-z]{1,8}): [-\\[\\]{}&*!|>%@`\"'a-zA-Z0-9:, ]{0,20}",
    ]
}

/// An example with one part of it in another's place.
fn mutated() -> impl Strategy<Value = (usize, String)> {
    let count = table::all().count();
    (0..count, hostile(), any::<prop::sample::Index>(), any::<prop::sample::Index>()).prop_map(
        |(which, other, from, to)| {
            let example: Vec<char> = table::all().nth(which).unwrap().example.chars().collect();
            let (a, b) = (from.index(example.len() + 1), to.index(example.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            let kept = |part: &[char]| part.iter().collect::<String>();
            (which, format!("{}{other}{}", kept(&example[..a]), kept(&example[b..])))
        },
    )
}

fn check(annotation: &Annotation, value: &str) -> Result<(), TestCaseError> {
    let name = format!("{}{}", table::PREFIX, annotation.name);
    match chosen(&[(&name, value)]) {
        Ok(Chosen { options, warnings }) => {
            for field in differing(&defaults(), &options) {
                let allowed =
                    fields(annotation).is_none_or(|known| known.contains(&field.as_str()));
                prop_assert!(allowed, "{name}: {value:?} changes {field}");
            }
            for warning in warnings {
                prop_assert!(
                    warning.chars().all(|c| c.is_ascii_graphic() || c == ' '),
                    "{warning:?}"
                );
            }
        }
        Err(bad) => {
            prop_assert_eq!(bad.len(), 1);
            prop_assert_eq!(&bad[0].annotation, &name);
            let text = bad[0].to_string();
            prop_assert!(text.contains(annotation.form) && text.len() < 1500, "{text}");
            prop_assert!(text.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{text:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_value_is_used_as_it_should_or_refused_by_name(
        which in 0..table::all().count(),
        value in hostile(),
    ) {
        check(table::all().nth(which).unwrap(), &value)?;
    }

    #[test]
    fn so_is_any_value_that_is_almost_right((which, value) in mutated()) {
        check(table::all().nth(which).unwrap(), &value)?;
    }

    #[test]
    fn any_name_is_harmless(name in "(meshwright.dev/|sidecar.istio.io/)?.{0,30}", value in hostile()) {
        if let Ok(chosen) = chosen(&[(&name, &value)]) {
            for warning in chosen.warnings {
                prop_assert!(warning.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{warning:?}");
            }
        }
    }
}
