//! Host names of Services and the short forms in which people write them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Host, Key, MeshConfig, Service, Visibility, syntax};

/// The full name of a Service.
pub fn service_host(key: &Key, cluster_domain: &str) -> Host {
    format!("{}.{}.svc.{cluster_domain}", key.name, key.namespace).into()
}

/// The full name for what somebody wrote in an object of `namespace`. `NAME` is a Service there;
/// `NAME.NAMESPACE` and `NAME.NAMESPACE.svc` are Services where such exist; all else is a name
/// as it is.
pub fn resolve(
    text: &str,
    namespace: &str,
    config: &MeshConfig,
    services: Option<&BTreeMap<Host, std::sync::Arc<Service>>>,
) -> Result<Host, String> {
    let host = syntax::host(text)?;
    let domain = &config.cluster_domain;
    if host == "*" || host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(host.into());
    }
    if !host.contains('.') {
        return Ok(format!("{host}.{namespace}.svc.{domain}").into());
    }
    let exists = |name: &str| services.is_some_and(|s| s.contains_key(name));
    let candidate = match host.split('.').count() {
        2 => format!("{host}.svc.{domain}"),
        3 if host.rsplit('.').next() == Some("svc") => format!("{host}.{domain}"),
        _ => return Ok(host.into()),
    };
    let found = !exists(&host) && exists(&candidate);
    Ok(if found { candidate.into() } else { host.into() })
}

/// As [`export_to`], with what holds where the list is empty.
pub fn export_to_or<'a>(
    list: impl IntoIterator<Item = &'a str>,
    default: &'a [String],
    namespace: &str,
) -> Visibility {
    let mut list = list.into_iter().filter(|entry| !entry.trim().is_empty()).peekable();
    match list.peek() {
        Some(_) => export_to(list, namespace),
        None => export_to(default.iter().map(String::as_str), namespace),
    }
}

/// What `exportTo` says: `*` everyone, `.` the object's own namespace, `~` nobody, else names.
pub fn export_to<'a>(list: impl IntoIterator<Item = &'a str>, namespace: &str) -> Visibility {
    let mut names = BTreeSet::new();
    let mut nobody = false;
    for entry in list {
        match entry.trim() {
            "" => {}
            "*" => return Visibility::Everyone,
            "~" => nobody = true,
            "." => {
                names.insert(namespace.into());
            }
            name => {
                names.insert(name.into());
            }
        }
    }
    match (names.is_empty(), nobody) {
        (false, _) => Visibility::Namespaces(names),
        (true, true) => Visibility::Nobody,
        (true, false) => Visibility::Everyone,
    }
}

/// Whether a host or wildcard covers another host or wildcard.
pub fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
        None => pattern == host,
    }
}

/// The narrower of two hosts or wildcards, where one covers the other.
pub fn intersection<'a>(a: &'a str, b: &'a str) -> Option<&'a str> {
    if covers(a, b) {
        Some(b)
    } else if covers(b, a) {
        Some(a)
    } else {
        None
    }
}

/// Names close to a mistyped one, nearest first, three at most.
pub fn similar<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let first = |host: &str| host.split('.').next().unwrap_or_default().to_owned();
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|host| {
            let whole = distance(wanted, host);
            // The same Service in another namespace is as likely a mistake as a typing error.
            let near = if first(wanted) == first(host) { whole.min(2) } else { whole };
            (near <= 2).then_some((near, host))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, host)| host).collect()
}

/// Edits from one text to the other (Levenshtein); more than 2 counts as 3.
fn distance(a: &str, b: &str) -> usize {
    const FAR: usize = 3;
    if a.len().abs_diff(b.len()) >= FAR {
        return FAR;
    }
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
        if row.iter().all(|edits| *edits >= FAR) {
            return FAR;
        }
    }
    row[b.len()].min(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visibility() {
        let names =
            |list: &[&str]| Visibility::Namespaces(list.iter().map(|n| (*n).into()).collect());
        assert_eq!(export_to([], "shop"), Visibility::Everyone);
        assert_eq!(export_to(["*", "a"], "shop"), Visibility::Everyone);
        assert_eq!(export_to(["."], "shop"), names(&["shop"]));
        assert_eq!(export_to([".", "a"], "shop"), names(&["a", "shop"]));
        assert_eq!(export_to(["~"], "shop"), Visibility::Nobody);
    }

    #[test]
    fn wildcards_cover_names_below_them() {
        assert!(covers("*.example.com", "a.example.com"));
        assert!(covers("*.example.com", "*.a.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert_eq!(intersection("*.example.com", "a.example.com"), Some("a.example.com"));
        assert_eq!(intersection("*", "*.com"), Some("*.com"));
        assert_eq!(intersection("a.com", "b.com"), None);
    }

    #[test]
    fn finds_what_was_meant() {
        let known = ["cart.shop.svc.cluster.local", "card.bank.svc.cluster.local"];
        assert_eq!(similar("cat.shop.svc.cluster.local", known), [known[0]]);
        assert_eq!(similar("card.shop.svc.cluster.local", known), [known[0], known[1]]);
        assert!(similar("other.shop.svc.cluster.local", known).is_empty());
    }
}
