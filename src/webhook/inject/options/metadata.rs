//! Istio's `proxyMetadata`: variables of the proxy, some of which mean more.

use super::{Options, form};
use crate::webhook::inject::container;

/// A variable that means more than itself.
pub struct Known {
    pub name: &'static str,
    pub form: &'static str,
    pub effect: &'static str,
    /// Sets what it means, and writes its value as the agent reads it.
    apply: fn(&mut Options, &str) -> form::Result<String>,
}

const BOOLEAN: &str = "`true` or `false`";

/// Sets a truth value.
fn boolean(field: &mut bool, value: &str) -> form::Result<String> {
    *field = form::boolean(value)?;
    Ok(field.to_string())
}

/// Sets a text.
fn text(field: &mut String, value: form::Result<String>) -> form::Result<String> {
    field.clone_from(&value?);
    Ok(field.clone())
}

pub const KNOWN: [Known; 7] = [
    Known {
        name: "ISTIO_META_DNS_CAPTURE",
        form: BOOLEAN,
        effect: "The agent answers the application's DNS questions, as by `meshwright.dev/dns-capture`.",
        apply: |options, value| boolean(&mut options.dns_capture, value),
    },
    Known {
        name: "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
        form: BOOLEAN,
        effect: "With `true`, a proxy that is told to stop waits for open connections as long as \
                 Kubernetes lets the pod. (Without, it ends with the last connection as well, but \
                 at the end of the drain at the latest.)",
        apply: |_, value| form::boolean(value).map(|yes| yes.to_string()),
    },
    Known {
        name: "MINIMUM_DRAIN_DURATION",
        form: "a duration of up to an hour",
        effect: "A drain takes at least so long, also without connections.",
        apply: |options, value| {
            options.min_drain_seconds = Some(form::seconds(value)?);
            Ok(value.to_owned())
        },
    },
    Known {
        name: "INVALID_DROP",
        form: BOOLEAN,
        effect: "Packets that belong to no known connection are dropped.",
        apply: |options, value| boolean(&mut options.redirection.drop_invalid, value),
    },
    Known {
        name: "ISTIO_OUTBOUND_OWNER_GROUPS",
        form: "`*` or a list of numbers of groups",
        effect: "Only these groups' outbound traffic is captured.",
        apply: |options, value| {
            text(&mut options.redirection.outbound_gids, form::all_or_ids(value))
        },
    },
    Known {
        name: "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        form: "a list of numbers of groups",
        effect: "These groups' outbound traffic is left alone.",
        apply: |options, value| {
            text(&mut options.redirection.exclude_outbound_gids, form::ids(value))
        },
    },
    Known {
        name: "ISTIO_META_NETWORK",
        form: "a name of up to 63 letters, digits, dots, dashes and underscores",
        effect: "The network that the pod is in, as by the label `topology.istio.io/network`.",
        apply: |options, value| {
            let network = network(value)?;
            options.network = Some(network.clone());
            Ok(network)
        },
    },
];

/// Variables of Istio's agent that do nothing here, with what to do instead.
pub const WITHOUT_EFFECT: [(&str, &str); 10] = [
    ("BOOTSTRAP_XDS_AGENT", "use the annotation bootstrap-override"),
    ("CREDENTIAL_FETCHER_TYPE", "identities come from the pod's service account"),
    ("ECC_SIGNATURE_ALGORITHM", "keys are ECDSA P-256 always"),
    ("ISTIO_DELTA_XDS", "configuration is sent incrementally always"),
    (
        "ISTIO_META_DNS_AUTO_ALLOCATE",
        "set spec.dns.autoAllocate of the MeshInstallation, for the whole mesh",
    ),
    ("OUTPUT_CERTS", "keys never leave the proxy"),
    ("PROV_CERT", "identities come from the pod's service account"),
    ("PROXY_XDS_VIA_AGENT", "Envoy talks to the control plane by itself"),
    ("SECRET_TTL", "set spec.proxy.certificateTtl of the MeshInstallation"),
    ("WORKLOAD_RSA_KEY_SIZE", "keys are ECDSA P-256 always"),
];

/// Sets one variable, with what it means. The error says what is wrong with its name or value.
pub fn apply(options: &mut Options, name: &str, value: &str) -> form::Result<()> {
    check_name(name)?;
    let value = match KNOWN.iter().find(|known| known.name == name) {
        None => value.to_owned(),
        Some(known) => (known.apply)(options, value).map_err(|because| {
            let because = if because.is_empty() { because } else { format!("{because}; ") };
            format!("{name} is {}: {because}it must be {}", form::part(value), known.form)
        })?,
    };
    options.metadata.insert(name.to_owned(), value);
    Ok(())
}

/// A variable that does nothing here, in words for whoever set it.
pub fn warning(name: &str) -> Option<String> {
    let (_, instead) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name)?;
    Some(format!("{name} has no effect: {instead}"))
}

/// The name of a network: that of a label's value.
pub fn network(text: &str) -> form::Result<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = (1..=63).contains(&text.len()) && text.bytes().all(plain);
    if good { Ok(text.to_owned()) } else { Err(String::new()) }
}

fn check_name(name: &str) -> form::Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let starts_well = !name.starts_with(|c: char| c.is_ascii_digit());
    if name.is_empty() || name.len() > 256 || !starts_well || !name.bytes().all(plain) {
        return Err(format!("{} is no name of a variable", form::part(name)));
    }
    if container::is_reserved(name) {
        return Err(format!("the variable {name} is set by Meshwright itself"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_variables_mean_more() {
        let mut options = Options::default();
        for (name, value) in [
            ("ISTIO_META_DNS_CAPTURE", "true"),
            ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "T"),
            ("MINIMUM_DRAIN_DURATION", "1m"),
            ("INVALID_DROP", "true"),
            ("TZ", "Europe/Berlin"),
        ] {
            apply(&mut options, name, value).unwrap();
        }
        assert!(options.dns_capture && options.redirection.drop_invalid);
        assert_eq!(options.min_drain_seconds, Some(60));
        let exit = &options.metadata["EXIT_ON_ZERO_ACTIVE_CONNECTIONS"];
        assert_eq!(exit, "true", "as the agent reads it");
        assert_eq!(options.metadata.len(), 5);
        assert_eq!(options.node_metadata().collect::<Vec<_>>(), [("DNS_CAPTURE", "true")]);
    }

    #[test]
    fn the_rest_is_named() {
        let error =
            |name: &str, value: &str| apply(&mut Options::default(), name, value).unwrap_err();
        assert!(error("ISTIO_META_DNS_CAPTURE", "yes").contains("`true` or `false`"));
        assert!(error("POD_NAME", "x").contains("Meshwright itself"));
        assert!(error("a=b", "x").contains("no name of a variable"));
        assert!(error("", "x").contains("no name of a variable"));
        assert!(warning("SECRET_TTL").unwrap().contains("certificateTtl"));
    }
}
