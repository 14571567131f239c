//! Workload identity: `spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT`.

use std::{fmt, str::FromStr};

/// A workload's SPIFFE identity, never a bare string.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    pub trust_domain: String,
    pub namespace: String,
    pub service_account: String,
}

/// Why a string is no workload identity of ours.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not of the form spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT")]
pub struct InvalidSpiffeId(String);

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSpiffeId(s.to_owned());
        let rest = s.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts[..] else {
            return Err(invalid());
        };
        if [trust_domain, namespace, service_account].iter().any(|p| p.is_empty()) {
            return Err(invalid());
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prints_what_it_parses() {
        let text = "spiffe://cluster.local/ns/shop/sa/cart";
        assert_eq!(text.parse::<SpiffeId>().unwrap().to_string(), text);
    }

    #[test]
    fn refuses_other_forms() {
        for text in [
            "",
            "spiffe://td",
            "spiffe://td/ns//sa/x",
            "https://td/ns/a/sa/b",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe:///ns/a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
    proptest! {
        #[test]
        fn parsing_undoes_printing(
            trust_domain in "[a-z0-9._-]{1,40}",
            namespace in "[a-z0-9-]{1,63}",
            service_account in "[a-z0-9.-]{1,80}",
        ) {
            let id = SpiffeId { trust_domain, namespace, service_account };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn printing_undoes_parsing(text in "(spiffe://)?[a-z/]{0,12}(/ns/)?[a-z/]{0,6}(/sa/)?.{0,6}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
