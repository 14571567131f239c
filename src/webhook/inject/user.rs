//! The proxy's user and group, by which its own traffic is told from the application's.

use serde_json::{Map, Value, json};

use super::{
    Namespace,
    container::{PROXY_CONTAINER, REDIRECT_CONTAINER},
    decide::PROXY_UID,
    json::{container, container_mut, object_in},
};

/// On a namespace of OpenShift: the users that its pods may have, as `START/SIZE` or `START-END`.
pub const UID_RANGE: &str = "openshift.io/sa.scc.uid-range";
/// The groups, as a list of such ranges.
pub const GROUPS: &str = "openshift.io/sa.scc.supplemental-groups";
const ROOT: i64 = 0;
/// Of `meshwright redirect`.
const FLAGS: [&str; 2] = ["--proxy-uid=", "--proxy-gid="];

/// Who the proxy runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: i64,
    pub gid: i64,
}

/// Where nobody says anything.
const USUAL: User = User { uid: PROXY_UID, gid: PROXY_UID };

impl User {
    /// The user that a namespace leaves to the proxy: as Istio does it, the last of the range, since
    /// OpenShift gives the first to the application.
    pub(super) fn of(namespace: &Namespace) -> Self {
        let range = |key: &str| namespace.annotations.get(key).map(String::as_str);
        let uids = range(UID_RANGE);
        let groups = range(GROUPS).or(uids).and_then(|groups| groups.split(',').next());
        Self {
            uid: uids.and_then(last).unwrap_or(USUAL.uid),
            gid: groups.and_then(last).unwrap_or(USUAL.gid),
        }
    }

    /// Gives a container this user where it has the usual one.
    pub(super) fn take_over(self, container: &mut Value) {
        let Some(Value::Object(security)) = container.get_mut("securityContext") else { return };
        for (field, id) in [("runAsUser", self.uid), ("runAsGroup", self.gid)] {
            if security.get(field).and_then(Value::as_i64) == Some(PROXY_UID) {
                security.insert(field.to_owned(), id.into());
            }
        }
    }

    /// The user that the pod's proxy ended up with.
    pub(super) fn of_proxy(spec: &Map<String, Value>) -> Self {
        let proxy = container(spec, PROXY_CONTAINER);
        let id = |field: &str| {
            let security = proxy?.get("securityContext")?;
            // Root's traffic cannot be left out: it is the application's in many pods.
            security.get(field)?.as_i64().filter(|id| *id != ROOT)
        };
        Self {
            uid: id("runAsUser").unwrap_or(USUAL.uid),
            gid: id("runAsGroup").unwrap_or(USUAL.gid),
        }
    }

    /// What `meshwright redirect` is told of it.
    pub(super) fn arguments(self) -> Vec<String> {
        let [uid, gid] = FLAGS;
        [(uid, self.uid, USUAL.uid), (gid, self.gid, USUAL.gid)]
            .into_iter()
            .filter(|(_, id, usual)| id != usual)
            .map(|(flag, id, _)| format!("{flag}{id}"))
            .collect()
    }

    /// Tells the container that redirects.
    pub(super) fn tell_redirect(self, spec: &mut Map<String, Value>) {
        let Some(redirect) = container_mut(spec, "initContainers", REDIRECT_CONTAINER) else {
            return;
        };
        if let Some(Value::Array(args)) = redirect.get_mut("args") {
            let is_user = |arg: &str| FLAGS.iter().any(|flag| arg.starts_with(flag));
            args.retain(|arg| !arg.as_str().is_some_and(is_user));
            args.extend(self.arguments().into_iter().map(Value::from));
        }
        // The one that only checks has no rights, so it may be anybody; on OpenShift it must be
        // somebody of the namespace's range.
        let security = object_in(redirect, "securityContext");
        if security.get("runAsUser").and_then(Value::as_i64).is_some_and(|uid| uid != ROOT) {
            security.insert("runAsUser".to_owned(), json!(self.uid));
            security.insert("runAsGroup".to_owned(), json!(self.gid));
        }
    }
}

/// The last of a range.
fn last(range: &str) -> Option<i64> {
    let number = |text: &str| text.trim().parse::<u32>().ok().map(i64::from);
    if let Some((start, size)) = range.split_once('/') {
        return Some(number(start)? + number(size).filter(|size| *size > 0)? - 1);
    }
    range.split_once('-').and_then(|(_, end)| number(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(annotations: &[(&str, &str)]) -> (i64, i64) {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let annotations = annotations.iter().map(own).collect();
        let user = User::of(&Namespace { annotations, ..Namespace::default() });
        (user.uid, user.gid)
    }

    #[test]
    fn openshift_says_by_range_who_may_run() {
        assert_eq!(user(&[]), (1337, 1337));
        assert_eq!(user(&[(UID_RANGE, "1000640000/10000")]), (1_000_649_999, 1_000_649_999));
        assert_eq!(user(&[(UID_RANGE, "1000-1999")]), (1999, 1999));
        assert_eq!(user(&[(UID_RANGE, "1000/10"), (GROUPS, "5000/10,7000/10")]), (1009, 5009));
        for nonsense in ["", "a/b", "1000", "1000/0", "/", "99999999999/1"] {
            assert_eq!(user(&[(UID_RANGE, nonsense)]), (1337, 1337), "{nonsense}");
        }
    }
}
