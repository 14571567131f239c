//! The labels by which tools of the mesh name a workload and its version.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::workload::workload_name;

const NAME: &str = "service.istio.io/canonical-name";
const REVISION: &str = "service.istio.io/canonical-revision";
const LONGEST: usize = 63;

/// The labels that the pod lacks; none where Istio's labels mean nothing.
pub(super) fn labels(pod: &ObjectMeta, istio: bool) -> Vec<(&'static str, String)> {
    let of_pod = |keys: &[&str]| {
        let labels = pod.labels.as_ref()?;
        keys.iter().find_map(|key| labels.get(*key).filter(|text| !text.is_empty())).cloned()
    };
    let name = || of_pod(&["app.kubernetes.io/name", "app"]).or_else(|| label(&workload_name(pod)));
    let version = || of_pod(&["app.kubernetes.io/version", "version"]);
    let has = |key: &str| pod.labels.as_ref().is_some_and(|labels| labels.contains_key(key));
    let mut wanted = Vec::new();
    if istio && !has(NAME) {
        wanted.extend(name().map(|name| (NAME, name)));
    }
    if istio && !has(REVISION) {
        wanted.push((REVISION, version().unwrap_or_else(|| "latest".to_owned())));
    }
    wanted
}

/// An object's name as a label's value, which is shorter; `None` where nothing is left.
fn label(name: &str) -> Option<String> {
    let end =
        name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= LONGEST);
    let cut = &name[..end.last().unwrap_or(0)];
    let cut = cut.trim_matches(['-', '_', '.']);
    (!cut.is_empty()).then(|| cut.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.iter().map(text).collect()),
            ..ObjectMeta::default()
        }
    }

    fn of(pod: &ObjectMeta) -> [String; 2] {
        labels(pod, true)
            .into_iter()
            .map(|(_, value)| value)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    #[test]
    fn the_nearest_name_wins() {
        assert_eq!(of(&pod("web-1", &[])), ["web-1", "latest"]);
        assert_eq!(of(&pod("web-1", &[("app", "web"), ("version", "v2")])), ["web", "v2"]);
        let recommended = [("app.kubernetes.io/name", "shop"), ("app", "web")];
        assert_eq!(of(&pod("web-1", &recommended)), ["shop", "latest"]);
    }

    #[test]
    fn the_pods_own_stay() {
        let own = pod("web-1", &[(NAME, "mine"), (REVISION, "")]);
        assert!(labels(&own, true).is_empty());
        assert!(labels(&pod("web-1", &[]), false).is_empty());
    }

    #[test]
    fn a_long_name_is_cut_to_a_label() {
        let name = format!("{}.more", "a".repeat(62));
        assert_eq!(of(&pod(&name, &[]))[0], "a".repeat(62));
        assert_eq!(label("..."), None);
    }
}
