//! Every annotation that a pod can have for its proxy, with Istio's name for it. The documentation is
//! made of this table too.

mod capture;
pub(super) mod container;
mod lifecycle;
pub(super) mod stats;

use std::borrow::Cow;

use super::{bad, form, pod::Draft};

pub(super) use capture::interception;

/// What our names begin with.
pub const PREFIX: &str = "meshwright.dev/";
/// Prefixes of Istio's annotations for sidecars.
const ISTIO_PREFIXES: [&str; 5] = [
    "sidecar.istio.io/",
    "traffic.sidecar.istio.io/",
    "status.sidecar.istio.io/",
    "readiness.status.sidecar.istio.io/",
    "proxy.istio.io/",
];

/// An annotation that changes a pod's proxy.
pub struct Annotation {
    /// After [`PREFIX`].
    pub name: &'static str,
    /// Istio's names for it, the current one first; none where it is ours alone.
    pub istio: &'static [&'static str],
    /// The accepted form, to be read after "the value must be".
    pub form: &'static str,
    pub example: &'static str,
    /// What it does, in sentences.
    pub effect: &'static str,
    pub(super) apply: fn(&mut Draft, &str) -> form::Result<()>,
}

impl Annotation {
    /// The names under which a pod may have it, those that win first.
    pub(super) fn names(&self, istio: bool) -> impl Iterator<Item = Cow<'static, str>> {
        let theirs = if istio { self.istio } else { &[] };
        let ours = Cow::Owned(format!("{PREFIX}{}", self.name));
        std::iter::once(ours).chain(theirs.iter().map(|name| Cow::Borrowed(*name)))
    }
}

/// A label or annotation that other parts of injection read or write.
pub struct Elsewhere {
    pub name: &'static str,
    pub istio: &'static str,
    pub effect: &'static str,
}

/// All of them. Later ones change what earlier ones have set, so the one for everything is the first.
pub fn all() -> impl Iterator<Item = &'static Annotation> {
    [lifecycle::ALL, container::ALL, capture::ALL, stats::ALL].into_iter().flatten()
}

/// Names that are not in the table because other parts of injection know them.
pub const ELSEWHERE: [Elsewhere; 10] = [
    Elsewhere {
        name: "meshwright.dev/inject",
        istio: "sidecar.istio.io/inject",
        effect: "Label. `true` or `false`: whether the pod gets a proxy.",
    },
    Elsewhere {
        name: "meshwright.dev/revision",
        istio: "istio.io/rev",
        effect: "Label. The revision that injects the pod; on an injected pod, the one that did.",
    },
    Elsewhere {
        name: "meshwright.dev/network",
        istio: "topology.istio.io/network",
        effect: "Label. The network that the pod is in, of meshes with several.",
    },
    Elsewhere {
        name: "meshwright.dev/templates",
        istio: "inject.istio.io/templates",
        effect: "Annotation. Templates that are laid over the pod, with commas between them.",
    },
    Elsewhere {
        name: "meshwright.dev/scrape-targets",
        istio: "prometheus.istio.io/scrape-targets",
        effect: "Annotation. Where the application's own metrics are, of several ports.",
    },
    Elsewhere {
        name: "meshwright.dev/merge-metrics",
        istio: "prometheus.istio.io/merge-metrics",
        effect: "Annotation. `true` or `false`: whether the agent's metrics include the application's.",
    },
    Elsewhere {
        name: "prometheus.istio.io/secure-port",
        istio: "",
        effect: "Annotation. A port on which metrics are served with mutual TLS.",
    },
    Elsewhere {
        name: "meshwright.dev/status",
        istio: "sidecar.istio.io/status",
        effect: "Annotation of an injected pod. What was added, as JSON.",
    },
    Elsewhere {
        name: "meshwright.dev/redirect",
        istio: "",
        effect: "Annotation of an injected pod. The arguments of `meshwright redirect`, as JSON.",
    },
    Elsewhere {
        name: "meshwright.dev/overrides",
        istio: "proxy.istio.io/overrides",
        effect: "Annotation of an injected pod. What the pod's own proxy container said, as JSON.",
    },
];

/// Whether the name looks like one of ours or Istio's, so that the table must be read.
pub(super) fn is_concerned(name: &str) -> bool {
    name.starts_with(PREFIX) || name.contains("istio.io/")
}

/// Warnings about names that look like annotations for the proxy and are none.
pub(super) fn strangers<'a>(
    names: impl Iterator<Item = &'a String>,
    istio: bool,
) -> impl Iterator<Item = String> {
    let looks = move |name: &&String| {
        name.starts_with(PREFIX) || (istio && ISTIO_PREFIXES.iter().any(|p| name.starts_with(p)))
    };
    let strange = names.filter(looks).filter(|name| !is_known(name));
    strange.map(|name| {
        let hint = nearest(name).map_or_else(String::new, |near| format!("; did you mean {near}?"));
        // It has been seen by nobody else yet, and may be anything.
        let name = bad::harmless(name);
        format!("there is no annotation {name}: it has no effect{hint}")
    })
}

fn is_known(name: &str) -> bool {
    let ours = name.strip_prefix(PREFIX);
    all().any(|known| ours == Some(known.name) || known.istio.contains(&name))
        || ELSEWHERE.iter().any(|known| known.name == name || known.istio == name)
}

/// A known name that differs in capitals or in one or two characters.
fn nearest(name: &str) -> Option<Cow<'static, str>> {
    let close = |other: &Cow<'static, str>| {
        let (a, b) = (name.to_ascii_lowercase(), other.to_ascii_lowercase());
        a.len().abs_diff(b.len()) <= 2 && distance(a.as_bytes(), b.as_bytes()) <= 2
    };
    all().flat_map(|known| known.names(true)).find(close)
}

/// How many bytes must be put in, left out or replaced to make one text of the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_used_once_and_written_alike() {
        let mut seen = BTreeSet::new();
        for name in all().flat_map(|known| known.names(true)) {
            assert!(seen.insert(name.clone()), "{name} stands twice in the table");
        }
        for known in all() {
            let kebab = |c: char| c.is_ascii_lowercase() || c == '-';
            assert!(known.name.chars().all(kebab), "{}", known.name);
            assert!(known.effect.ends_with('.'), "{}", known.name);
        }
        for known in &ELSEWHERE {
            assert!(seen.insert(known.name.into()), "{} stands in both tables", known.name);
        }
    }

    #[test]
    fn a_name_that_is_almost_right_is_found() {
        let warnings = |name: &str| strangers([name.to_owned()].iter(), true).collect::<Vec<_>>();
        let found = warnings("sidecar.istio.io/proxycpu");
        assert!(found[0].ends_with("did you mean sidecar.istio.io/proxyCPU?"), "{found:?}");
        let found = warnings("meshwright.dev/proxy-cpus");
        assert!(found[0].ends_with("did you mean meshwright.dev/proxy-cpu?"), "{found:?}");
        assert!(warnings("meshwright.dev/whatever")[0].ends_with("it has no effect"));
        for known in ["sidecar.istio.io/inject", "meshwright.dev/status", "example.com/istio.io/x"]
        {
            assert!(warnings(known).is_empty(), "{known}");
        }
    }
}
