//! Formats with Envoy's `%COMMANDS%`. One that Envoy does not know would make every proxy refuse its
//! listeners, so what may be written is what Envoy 1.40 was seen to take.

/// Commands without an argument.
const BARE: [&str; 108] = [
    "ACCESS_LOG_TYPE",
    "BYTES_RECEIVED",
    "BYTES_RETRANSMITTED",
    "BYTES_SENT",
    "CONNECTION_ID",
    "CONNECTION_TERMINATION_DETAILS",
    "CUSTOM_FLAGS",
    "DOWNSTREAM_DETECTED_CLOSE_TYPE",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_LOCAL_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_DIRECT_REMOTE_PORT",
    "DOWNSTREAM_HANDSHAKE_DURATION",
    "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    "DOWNSTREAM_HEADER_BYTES_SENT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_CLOSE_REASON",
    "DOWNSTREAM_LOCAL_DNS_SAN",
    "DOWNSTREAM_LOCAL_EMAIL_SAN",
    "DOWNSTREAM_LOCAL_IP_SAN",
    "DOWNSTREAM_LOCAL_OTHERNAME_SAN",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_SUBJECT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_CERT",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    "DOWNSTREAM_PEER_CHAIN_SERIALS",
    "DOWNSTREAM_PEER_DNS_SAN",
    "DOWNSTREAM_PEER_EMAIL_SAN",
    "DOWNSTREAM_PEER_FINGERPRINT_1",
    "DOWNSTREAM_PEER_FINGERPRINT_256",
    "DOWNSTREAM_PEER_IP_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_OTHERNAME_SAN",
    "DOWNSTREAM_PEER_SERIAL",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DOWNSTREAM_TLS_CIPHER",
    "DOWNSTREAM_TLS_SESSION_ID",
    "DOWNSTREAM_TLS_VERSION",
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    "DOWNSTREAM_WIRE_BYTES_SENT",
    "DURATION",
    "FILTER_CHAIN_NAME",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "HOSTNAME",
    "LISTENER_NAME",
    "LOCAL_REPLY_BODY",
    "PACKETS_RETRANSMITTED",
    "PATH",
    "PROTOCOL",
    "QUERY_PARAMS",
    "REQUESTED_SERVER_NAME",
    "REQUEST_DURATION",
    "REQUEST_HEADERS_BYTES",
    "REQUEST_TX_DURATION",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_DURATION",
    "RESPONSE_FLAGS",
    "RESPONSE_FLAGS_LONG",
    "RESPONSE_HEADERS_BYTES",
    "RESPONSE_TRAILERS_BYTES",
    "RESPONSE_TX_DURATION",
    "ROUNDTRIP_DURATION",
    "ROUTE_NAME",
    "STREAM_ID",
    "TLS_JA3_FINGERPRINT",
    "TRACE_ID",
    "UNIQUE_ID",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_CLUSTER_RAW",
    "UPSTREAM_CONNECTION_ID",
    "UPSTREAM_CONNECTION_POOL_READY_DURATION",
    "UPSTREAM_HEADER_BYTES_RECEIVED",
    "UPSTREAM_HEADER_BYTES_SENT",
    "UPSTREAM_HOST",
    "UPSTREAM_HOST_NAME",
    "UPSTREAM_LOCAL_ADDRESS",
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_LOCAL_PORT",
    "UPSTREAM_LOCAL_URI_SAN",
    "UPSTREAM_PEER_CERT",
    "UPSTREAM_PEER_DNS_SAN",
    "UPSTREAM_PEER_IP_SAN",
    "UPSTREAM_PEER_ISSUER",
    "UPSTREAM_PEER_SUBJECT",
    "UPSTREAM_PEER_URI_SAN",
    "UPSTREAM_PROTOCOL",
    "UPSTREAM_REMOTE_ADDRESS",
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "UPSTREAM_REMOTE_PORT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    "UPSTREAM_TLS_CIPHER",
    "UPSTREAM_TLS_VERSION",
    "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "UPSTREAM_WIRE_BYTES_RECEIVED",
    "UPSTREAM_WIRE_BYTES_SENT",
    "VIRTUAL_CLUSTER_NAME",
];

/// Commands with the name of a header, or of two of which the second stands in for the first.
const OF_HEADERS: [&str; 3] = ["REQ", "RESP", "TRAILER"];

/// Other commands with an argument, and whether their value may be cut to a length.
const WITH_ARGUMENT: [(&str, bool); 5] = [
    ("CLUSTER_METADATA", false),
    ("DYNAMIC_METADATA", true),
    ("ENVIRONMENT", true),
    ("QUERY_PARAM", true),
    ("UPSTREAM_METADATA", false),
];

/// Points in time, maybe with a format of their own.
const TIMES: [&str; 7] = [
    "DOWNSTREAM_PEER_CERT_V_END",
    "DOWNSTREAM_PEER_CERT_V_START",
    "EMIT_TIME",
    "START_TIME",
    "START_TIME_LOCAL",
    "UPSTREAM_PEER_CERT_V_END",
    "UPSTREAM_PEER_CERT_V_START",
];

/// The text, if Envoy takes it; else a sentence on what is wrong.
pub fn checked(text: &str) -> Result<String, String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        rest = match after.strip_prefix('%') {
            Some(rest) => rest,
            None => command(after)?,
        };
    }
    Ok(text.to_owned())
}

/// Reads a command whose `%` has been read; gives what stands behind it.
fn command(text: &str) -> Result<&str, String> {
    let ends = text.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let (name, mut rest) = text.split_at(ends.unwrap_or(text.len()));
    if name.is_empty() {
        return Err("a % that is none of a command's is written %%".to_owned());
    }
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let (inside, after) =
            inside.split_once(')').ok_or_else(|| format!("%{name}( has no closing parenthesis"))?;
        argument = Some(inside);
        rest = after;
    }
    let mut length = false;
    if let Some(after) = rest.strip_prefix(':') {
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        length = after[..digits].parse::<u16>().is_ok();
        if !length {
            return Err(format!("behind the colon of %{name} stands no length"));
        }
        rest = &after[digits..];
    }
    let rest = rest.strip_prefix('%').ok_or_else(|| format!("%{name} has no closing %"))?;
    allowed(name, argument, length).map(|()| rest)
}

fn allowed(name: &str, argument: Option<&str>, length: bool) -> Result<(), String> {
    let (bare, time) = (BARE.contains(&name), TIMES.contains(&name));
    let other = WITH_ARGUMENT.iter().find(|(known, _)| *known == name);
    let of_headers = OF_HEADERS.contains(&name);
    match argument {
        None if (bare || time) && !length => Ok(()),
        None if of_headers || other.is_some() => {
            Err(format!("%{name} needs an argument, such as %REQ(USER-AGENT)%"))
        }
        Some(format) if time && !length && !format.contains('\n') => Ok(()),
        Some(names) if of_headers => {
            let sound = names.split('?').all(is_header) && names.matches('?').count() < 2;
            sound.then_some(()).ok_or_else(|| format!("({names}) is no argument for %{name}"))
        }
        Some(argument) if other.is_some_and(|(_, may_be_cut)| *may_be_cut || !length) => {
            let sound = |c: char| c.is_ascii_alphanumeric() || "-_.:/".contains(c);
            (!argument.is_empty() && argument.chars().all(sound))
                .then_some(())
                .ok_or_else(|| format!("({argument}) is no argument for %{name}"))
        }
        _ if bare || time || other.is_some() => {
            Err(format!("%{name} takes no argument or no length like this"))
        }
        _ => Err(format!("there is no command %{name}%")),
    }
}

/// Whether it is the name of a header, or of one of HTTP/2's own such as `:path`.
fn is_header(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_envoy_takes() {
        for text in [
            "",
            "plain",
            "100%%",
            "[%START_TIME%] %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%:10",
            "%REQ(a):5%%RESPONSE_FLAGS%",
            "%START_TIME(%Y-%m-%d)%",
            "%UPSTREAM_METADATA(meshwright:workload)%",
        ] {
            assert_eq!(checked(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn says_what_is_wrong_with_the_rest() {
        for (text, want) in [
            ("100%", "a % that is none"),
            ("%a%", "a % that is none"),
            ("%NO_SUCH%", "there is no command %NO_SUCH%"),
            ("%REQ()%", "() is no argument"),
            ("%REQ(a?b?c)%", "(a?b?c) is no argument"),
            ("%REQ%", "%REQ needs an argument"),
            ("%REQ(a%", "%REQ( has no closing"),
            ("%REQ(a)", "%REQ has no closing %"),
            ("%REQ(a):x%", "no length"),
            ("%BYTES_SENT:5%", "%BYTES_SENT takes no"),
            ("%PROTOCOL(x)%", "%PROTOCOL takes no"),
        ] {
            let error = checked(text).unwrap_err();
            assert!(error.starts_with(want) || error.contains(want), "{text}: {error}");
        }
    }
}
