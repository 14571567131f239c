//! Header changes.

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};

use crate::mesh::HeaderChanges;

/// Changes in the form in which Envoy takes them.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) add: Vec<HeaderValueOption>,
    pub(super) remove: Vec<String>,
    /// A new Host header. Envoy refuses configuration that changes it as a header.
    pub(super) host: Option<String>,
}

impl Changes {
    pub(super) fn of(changes: &HeaderChanges, commands: bool) -> Self {
        use HeaderAppendAction::{AppendIfExistsOrAdd, OverwriteIfExistsOrAdd};
        let option =
            |(name, value): &(String, String), action: HeaderAppendAction| HeaderValueOption {
                header: Some(HeaderValue {
                    key: name.clone(),
                    value: if commands { checked(value) } else { literal(value) },
                    ..HeaderValue::default()
                }),
                append_action: action.into(),
                keep_empty_value: true,
                ..HeaderValueOption::default()
            };
        let set = changes.set.iter().filter(|(name, _)| !is_host(name));
        let add = changes.add.iter().filter(|(name, _)| !is_host(name));
        Self {
            add: set
                .map(|change| option(change, OverwriteIfExistsOrAdd))
                .chain(add.map(|change| option(change, AppendIfExistsOrAdd)))
                .collect(),
            remove: changes.remove.iter().filter(|name| !is_host(name)).cloned().collect(),
            host: changes.set.iter().find(|(n, _)| is_host(n)).map(|(_, value)| value.clone()),
        }
    }

    /// These, and `later` after them.
    pub(super) fn then(mut self, later: Self) -> Self {
        self.add.extend(later.add);
        self.remove.extend(later.remove);
        self.host = later.host.or(self.host);
        self
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.starts_with(':')
}

/// Envoy takes `%` for the beginning of a command.
fn literal(value: &str) -> String {
    value.replace('%', "%%")
}

/// As written if all its `%` are commands that Envoy knows; else literal: Envoy refuses the whole
/// table for one command that it does not know.
fn checked(value: &str) -> String {
    if is_well_formed(value) { value.to_owned() } else { literal(value) }
}

const COMMANDS: [&str; 30] = [
    "BYTES_RECEIVED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_VERSION",
    "HOSTNAME",
    "PROTOCOL",
    "REQ",
    "REQUESTED_SERVER_NAME",
    "RESP",
    "RESPONSE_CODE",
    "RESPONSE_FLAGS",
    "ROUTE_NAME",
    "START_TIME",
    "UPSTREAM_HOST",
    "UPSTREAM_REMOTE_ADDRESS",
];

fn is_well_formed(value: &str) -> bool {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        let Some((command, after)) = after.split_once('%') else { return false };
        let name = command.split(['(', ':']).next().unwrap_or_default();
        let closed = command.matches('(').count() == command.matches(')').count();
        if !(command.is_empty() || closed && COMMANDS.contains(&name)) {
            return false;
        }
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_commands_become_text() {
        for (value, want) in [
            ("plain", "plain"),
            ("100%", "100%%"),
            ("100%%", "100%%"),
            ("%REQ(x-a)%", "%REQ(x-a)%"),
            ("a %DOWNSTREAM_PEER_URI_SAN% b", "a %DOWNSTREAM_PEER_URI_SAN% b"),
            ("%NO_SUCH%", "%%NO_SUCH%%"),
            ("%REQ(x%", "%%REQ(x%%"),
        ] {
            assert_eq!(checked(value), want, "{value}");
        }
    }

    #[test]
    fn the_host_is_no_header() {
        let changes = HeaderChanges {
            set: vec![("Host".into(), "a.b".into()), ("x".into(), "1".into())],
            add: vec![(":authority".into(), "c".into())],
            remove: vec!["host".into(), "y".into()],
        };
        let changes = Changes::of(&changes, false);
        assert_eq!(changes.host.as_deref(), Some("a.b"));
        assert_eq!(changes.add.len(), 1);
        assert_eq!(changes.remove, ["y"]);
    }
}
