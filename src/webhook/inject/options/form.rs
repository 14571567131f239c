//! The forms of values: those of annotations and of a MeshInstallation's fields alike, so that what
//! the one takes the other takes too. An error says what is wrong; it is empty where the accepted
//! form says it all.

use std::{net::IpAddr, ops::RangeInclusive, time::Duration};

use crate::{
    agent::stats::Millis,
    api::meshwright::{LogLevel, duration},
    redirect::Cidr,
};

pub type Result<T> = std::result::Result<T, String>;

/// A longer list would make an argument that Linux does not take.
const LONGEST_LIST: usize = 1000;
/// The parts of Envoy 1.40 that have a log level of their own. Envoy does not start with others.
const COMPONENTS: &str = "a2a admin ai_protocol_manager alternate_protocols_cache assert aws \
    backtrace basic_auth cache_filter client compression config conn_handler connection \
    credential_injector decompression dns dubbo dynamic_modules envoy_bug ext_authz ext_proc file \
    filter forward_proxy geolocation golang grpc happy_eyeballs hc health_checker http http2 \
    hystrix init io ip_tagging json_rpc jwt kafka key_value_store local_rate_limit lua main \
    matcher mcp misc mongo multi_connection notification oauth2 pool quic quic_stream \
    rate_limit_quota rbac rds redis rocketmq router runtime secret sse stats stats_sinks tap \
    testing thrift tracing udp upstream wasm websocket";

/// What Istio takes for a truth value.
pub fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        _ => Err(String::new()),
    }
}

/// A whole number of a range.
pub fn whole(text: &str, range: RangeInclusive<i32>) -> Result<i32> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(String::new)
}

/// A number of a port.
pub fn port(text: &str) -> Result<u16> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{} is no port", part(text))),
        Ok(port) => Ok(port),
    }
}

pub fn ports(text: &str) -> Result<String> {
    list(text, |item| port(item).map(|port| port.to_string()))
}

pub fn all_or_ports(text: &str) -> Result<String> {
    all_or(text, ports)
}

/// A range of addresses; bits outside of its prefix are cleared.
pub fn cidr(text: &str) -> Result<String> {
    let cidr = text.parse::<Cidr>();
    cidr.map(|cidr| cidr.to_string()).map_err(|_| format!("{} is no range", part(text)))
}

pub fn cidrs(text: &str) -> Result<String> {
    list(text, cidr)
}

pub fn all_or_cidrs(text: &str) -> Result<String> {
    all_or(text, cidrs)
}

/// Names of network interfaces, which Linux limits to 15 bytes. A `+` at the end stands for any end.
pub fn interfaces(text: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    list(text, |item| {
        let name = item.strip_suffix('+').unwrap_or(item);
        let good = !name.is_empty() && item.len() <= 15 && name.chars().all(plain);
        let good = good && !matches!(name, "." | "..") && !name.starts_with('-');
        if good { Ok(item.to_owned()) } else { Err(format!("{} is no interface", part(item))) }
    })
}

pub fn all_or_interfaces(text: &str) -> Result<String> {
    all_or(text, interfaces)
}

/// Numbers of users or groups. The greatest of all means nobody.
pub fn ids(text: &str) -> Result<String> {
    list(text, |item| match item.parse::<u32>() {
        Ok(id) if id != u32::MAX => Ok(id.to_string()),
        _ => Err(format!("{} is no number of a user or group", part(item))),
    })
}

pub fn all_or_ids(text: &str) -> Result<String> {
    all_or(text, ids)
}

/// Texts with commas between them; none of them empty.
pub fn texts(text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let each = |item: &str| {
        found.push(item.to_owned());
        Ok(String::new())
    };
    list(text, each)?;
    Ok(found)
}

fn all_or(text: &str, list: impl Fn(&str) -> Result<String>) -> Result<String> {
    if text.trim() == "*" { Ok("*".to_owned()) } else { list(text) }
}

/// The items of a list with commas, each as `one` writes it; nothing is an empty list.
fn list(text: &str, mut one: impl FnMut(&str) -> Result<String>) -> Result<String> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    if text.split(',').nth(LONGEST_LIST).is_some() {
        return Err(format!("it has more than {LONGEST_LIST} items"));
    }
    let items: Result<Vec<_>> = text.split(',').map(|item| one(nonempty(item.trim())?)).collect();
    items.map(|items| items.join(","))
}

fn nonempty(item: &str) -> Result<&str> {
    if item.is_empty() { Err("an item is empty".to_owned()) } else { Ok(item) }
}

/// One of Envoy's log levels, as Envoy is told it.
pub fn log_level(text: &str) -> Result<LogLevel> {
    match text {
        "trace" => Ok(LogLevel::Trace),
        "debug" => Ok(LogLevel::Debug),
        "info" => Ok(LogLevel::Info),
        "warning" | "warn" => Ok(LogLevel::Warning),
        "error" => Ok(LogLevel::Error),
        "critical" => Ok(LogLevel::Critical),
        "off" => Ok(LogLevel::Off),
        _ => Err(String::new()),
    }
}

/// `COMPONENT:LEVEL,…`
pub fn component_levels(text: &str) -> Result<String> {
    list(text, |item| {
        let (component, level) = item.split_once(':').ok_or_else(String::new)?;
        if !COMPONENTS.split_whitespace().any(|known| known == component) {
            return Err(format!("Envoy has no component {}", part(component)));
        }
        let level = log_level(level).map_err(|_| format!("{} is no level", part(level)))?;
        Ok(format!("{component}:{}", level.as_str()))
    })
}

/// The level of one's own logs; the rest are scopes of Istio's agent that ours does not have.
pub fn agent_level(text: &str) -> Result<(String, Vec<String>)> {
    let (mut chosen, mut others) = (None, Vec::new());
    for item in text.split(',').map(str::trim) {
        let (scope, level) = item.split_once(':').unwrap_or(("default", item));
        let level = match level {
            "none" => "off",
            "fatal" => "error",
            "error" | "warn" | "info" | "debug" | "trace" => level,
            _ => return Err(format!("{} is no level", part(level))),
        };
        match scope {
            "default" | "all" => chosen = Some(level.to_owned()),
            _ if scope.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
                others.push(scope.to_owned());
            }
            _ => return Err(format!("{} is no scope", part(scope))),
        }
    }
    Ok((chosen.unwrap_or_default(), others))
}

/// A reference to an image, or the last part of its name.
pub fn image(text: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let good = text.len() <= 512
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.trim_start_matches('[').replace("]:", ":").chars().all(plain)
        && !text.contains("//");
    if good { Ok(text) } else { Err(String::new()) }
}

/// `HOST:PORT`
pub fn address(text: &str) -> Result<&str> {
    let (host, port) = text.rsplit_once(':').ok_or_else(String::new)?;
    self::port(port)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let good = match bracketed {
        Some(host) => host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
        None => is_name(&host.to_ascii_lowercase()),
    };
    if good { Ok(text) } else { Err(format!("{} is no host", part(host))) }
}

/// Whether it is a name as Kubernetes' objects have: labels of DNS with dots between them.
pub fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Whether it is a label of DNS.
pub fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A duration of up to an hour, in whole seconds, the last one begun.
pub fn seconds(text: &str) -> Result<i32> {
    let duration = duration::parse(text).ok_or_else(String::new)?;
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    let seconds = i32::try_from(seconds).ok().filter(|seconds| *seconds <= 3600);
    seconds.ok_or_else(|| "it is longer than an hour".to_owned())
}

/// A duration of a range, in whole milliseconds.
pub fn millis(text: &str, range: RangeInclusive<Duration>) -> Result<Millis> {
    let duration = duration::parse(text).filter(|duration| range.contains(duration));
    let millis = duration.and_then(|duration| u32::try_from(duration.as_millis()).ok());
    millis.map(Millis).ok_or_else(String::new)
}

/// A part of a value within an error.
pub fn part(text: &str) -> String {
    super::bad::shown(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_normalized() {
        assert_eq!(ports(" 80, 443 ").unwrap(), "80,443");
        assert_eq!(ports("").unwrap(), "");
        assert_eq!(all_or_ports(" * ").unwrap(), "*");
        assert_eq!(cidrs("10.1.2.3/8,fd00::1").unwrap(), "10.0.0.0/8,fd00::1/128");
        assert_eq!(interfaces("net1,eth0.5,tap+").unwrap(), "net1,eth0.5,tap+");
        assert_eq!(ids("0,1000").unwrap(), "0,1000");
    }

    #[test]
    fn one_bad_item_spoils_a_list() {
        for bad in ["0", "65536", "80,,443", "80,", "80 443", "+-1", "*,80", "0x50", "http"] {
            assert!(all_or_ports(bad).is_err(), "{bad}");
        }
        for bad in ["10.0.0.0/33", "10.0.0", "*", "10.0.0.0/8;", "example.com"] {
            assert!(cidrs(bad).is_err(), "{bad}");
        }
        for bad in ["a/b", "..", "-x", "+", "a+b", "sixteenletters00", "eth\n0", "a b"] {
            assert!(interfaces(bad).is_err(), "{bad}");
        }
        assert!(ids("4294967295").is_err());
        let many = vec!["80"; LONGEST_LIST + 1].join(",");
        assert!(ports(&many).unwrap_err().contains("more than"));
    }

    #[test]
    fn levels() {
        assert_eq!(
            component_levels("upstream:warn,http2:off").unwrap(),
            "upstream:warning,http2:off"
        );
        assert!(component_levels("upstraem:debug").unwrap_err().contains("upstraem"));
        assert!(component_levels("upstream:loud").unwrap_err().contains("loud"));
        assert_eq!(
            agent_level("default:debug,ca:info").unwrap(),
            ("debug".into(), vec!["ca".into()])
        );
        assert_eq!(agent_level("none").unwrap().0, "off");
        assert!(agent_level("meshwright=debug").is_err());
    }

    #[test]
    fn images() {
        for good in
            ["proxy", "proxy:1", "registry.test:5000/a/b:v1", "a/b@sha256:0123", "[::1]:5000/a"]
        {
            assert!(image(good).is_ok(), "{good}");
        }
        for bad in ["", " ", "a b", "a\nb", "a//b", "/a", "a:", "$(A)", "a\"b", "{{x}}"] {
            assert!(image(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["istiod.istio-system.svc:15012", "10.0.0.1:1", "[fd00::1]:15012"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["host", "host:0", ":1", "a b:1", "fd00::1:x", "[x]:1", "a_b:1"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_rounded_up() {
        assert_eq!(seconds("1500ms"), Ok(2));
        assert_eq!(seconds("1h"), Ok(3600));
        assert!(seconds("61m").is_err());
        assert!(seconds("-1s").is_err());
    }
}
