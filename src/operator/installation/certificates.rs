//! By when the certificates end that the mesh cannot do without. Pure.

use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::parse_x509_certificate;

use crate::{api::meshwright::CertificateStatus, operator::conditions::Finding};

/// What renews itself does so long before; a plugged-in CA is somebody's work of days.
const SOON_SECONDS: i64 = 14 * 24 * 3600;

/// Name in the status, whether it stands in the webhook's Secret, and its key there.
const PLACES: [(&str, bool, &str); 3] = [
    ("root", false, "root-cert.pem"),
    ("issuer", false, "ca-cert.pem"),
    ("webhook", true, "tls.crt"),
];

/// Reads them from the Secrets that are there.
pub(super) fn read(webhook: Option<&Secret>, authority: Option<&Secret>) -> Vec<CertificateStatus> {
    let status = |(name, of_webhook, key): (&str, bool, &str)| {
        let secret = if of_webhook { webhook } else { authority };
        let not_after = not_after(&secret?.data.as_ref()?.get(key)?.0)?;
        Some(CertificateStatus { name: name.to_owned(), not_after: not_after.to_string() })
    };
    PLACES.into_iter().filter_map(status).collect()
}

/// Of the first certificate of a PEM file.
fn not_after(pem: &[u8]) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = parse_x509_certificate(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Whether any of them ends soon or has ended.
pub(super) fn finding(certificates: &[CertificateStatus], now: Timestamp) -> Finding {
    const KIND: &str = "CertificatesValid";
    let left = |certificate: &CertificateStatus| {
        let end: Timestamp = certificate.not_after.parse().ok()?;
        Some(end.as_second() - now.as_second())
    };
    let names = |most: i64| -> Vec<String> {
        let ending = certificates.iter().filter(|c| left(c).is_some_and(|left| left < most));
        ending.map(|c| format!("{} on {}", c.name, c.not_after)).collect()
    };
    let (ended, soon) = (names(0), names(SOON_SECONDS));
    if !ended.is_empty() {
        return Finding::new(
            KIND,
            false,
            "Ended",
            format!("certificates have ended: {}", ended.join(", ")),
        );
    }
    if !soon.is_empty() {
        let message =
            format!("certificates end soon and nothing has renewed them: {}", soon.join(", "));
        return Finding::new(KIND, false, "EndsSoon", message);
    }
    Finding::new(KIND, true, "Valid", "no certificate of the mesh ends soon")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::ByteString;
    use time::OffsetDateTime;

    use super::*;
    use crate::webhook::certificate::Bundle;

    #[test]
    fn reads_the_end_of_the_webhooks_certificate() {
        let now = OffsetDateTime::from_unix_timestamp(1_000_000_000).unwrap();
        let bundle = Bundle::issue(&["a.svc".to_owned()].into(), now, None).unwrap();
        let data = [("tls.crt".to_owned(), ByteString(bundle.certificate.into_bytes()))];
        let secret = Secret { data: Some(BTreeMap::from(data)), ..Secret::default() };
        let found = read(Some(&secret), Some(&Secret::default()));
        let names: Vec<_> = found.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["webhook"]);
        let ninety_days = Timestamp::from_second(1_000_000_000 + 90 * 24 * 3600).unwrap();
        assert_eq!(found[0].not_after, ninety_days.to_string());
    }

    #[test]
    fn says_which_ends_soon() {
        let end = Timestamp::from_second(100 * 24 * 3600).unwrap();
        let one = [CertificateStatus { name: "root".to_owned(), not_after: end.to_string() }];
        let at = |day: i64| finding(&one, Timestamp::from_second(day * 24 * 3600).unwrap());
        assert_eq!(at(10).reason, "Valid");
        assert_eq!(at(90).reason, "EndsSoon");
        assert_eq!(at(101).reason, "Ended");
        assert!(at(101).message.contains("root"));
        assert_eq!(finding(&[], end).status, Some(true));
    }
}
