//! The workload's certificate: asked for with the pod's token, renewed at half life, kept while the CA
//! is away. The key is made here and never leaves the pod.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use rcgen::{CertificateParams, KeyPair, PublicKeyData, SanType};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    agent::{
        Settings, connect,
        metrics::Figures,
        retry::{pause, random},
    },
    ca::{Certificate, certificates_in_pem},
    identity::SpiffeId,
};

mod call;

/// The workload's certificate and key.
#[derive(Debug, PartialEq, Eq)]
pub struct Issued {
    /// In PEM, the leaf first.
    pub chain_pem: String,
    pub key_pem: String,
    pub issued_at: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

/// What Envoy gets from the agent; each part as soon as it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets {
    pub certificate: Option<Arc<Issued>>,
    /// The roots to trust, in PEM.
    pub roots: Option<Arc<str>>,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}, which is mounted into every meshed pod")]
    File { path: PathBuf, source: io::Error },
    #[error("the root certificates in {path} cannot be used")]
    Roots { path: PathBuf, source: crate::ca::Error },
    #[error("cannot make a key or a certificate request")]
    Request(#[source] rcgen::Error),
    #[error("cannot connect to the CA")]
    Connect(#[source] connect::Error),
    #[error("the CA at {address} refused: {message}")]
    Refused { address: String, message: String },
    #[error("the CA's answer cannot be used: {0}")]
    Answer(String),
}

/// How soon after a failure the CA is asked again, at most.
const LAST_RETRY: Duration = Duration::from_secs(15);
/// The same for a pod that has no certificate at all, and cannot serve without one.
const LAST_RETRY_WITHOUT: Duration = Duration::from_secs(1);

/// A pod that slept must not sleep on: the time is looked at at least this often.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// How often the mounted root certificates are looked at.
const ROOTS_POLL: Duration = Duration::from_secs(2);

/// Keeps the certificate in `secrets` valid. Does not return.
pub async fn keep_certificate(
    settings: Arc<Settings>,
    secrets: watch::Sender<Secrets>,
    figures: Arc<Figures>,
) {
    let mut failures = 0_u32;
    loop {
        match fetch(&settings).await {
            Ok(issued) => {
                failures = 0;
                figures.renewed(issued.not_after);
                tracing::info!(identity = %settings.identity, not_after = %issued.not_after, "got a certificate");
                let due = renewal(&issued, random());
                secrets.send_modify(|secrets| secrets.certificate = Some(Arc::new(issued)));
                sleep_until(due).await;
            }
            Err(error) => {
                figures.failed();
                let limit = match secrets.borrow().certificate {
                    Some(_) => LAST_RETRY,
                    None => LAST_RETRY_WITHOUT,
                };
                let pause = pause(failures, limit, random());
                failures = failures.saturating_add(1);
                tracing::warn!(error = %with_causes(&error), retry_in = ?pause, "no new certificate");
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// Keeps the roots in `secrets` as they are in the mounted file. Does not return.
///
/// The kubelet changes mounted files by swapping a link, and not every file system tells: a small
/// file is cheaper to read than to watch.
pub async fn keep_roots(settings: Arc<Settings>, secrets: watch::Sender<Secrets>) {
    let path = settings.roots_file();
    let mut told = false;
    loop {
        match read_roots(&path) {
            Ok(roots) => {
                told = false;
                let changed = secrets.send_if_modified(|secrets| {
                    let changed = secrets.roots.as_deref() != Some(&*roots);
                    if changed {
                        secrets.roots = Some(roots.into());
                    }
                    changed
                });
                if changed {
                    tracing::info!("read the root certificates");
                }
            }
            // What was good stays in force.
            Err(error) if !told => {
                told = true;
                tracing::warn!(error = %with_causes(&error), "no new root certificates");
            }
            Err(_) => {}
        }
        tokio::time::sleep(ROOTS_POLL).await;
    }
}

/// Reads the roots, and makes sure that they are some.
fn read_roots(path: &std::path::Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::File { path: path.to_owned(), source })?;
    certificates_in_pem(&text, "root-cert.pem")
        .map_err(|source| Error::Roots { path: path.to_owned(), source })?;
    Ok(text)
}

/// Gets one certificate for a new key.
pub async fn fetch(settings: &Settings) -> Result<Issued, Error> {
    let key = KeyPair::generate().map_err(Error::Request)?;
    let csr = request(&key, &settings.identity)?;
    // The kubelet replaces the token before it expires.
    let path = settings.token_file();
    let token = std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    let roots = read_roots(&settings.roots_file())?;
    let chain = call::create_certificate(settings, &roots, token.trim(), csr).await?;
    accept(&chain, &key, &settings.identity, OffsetDateTime::now_utc())
}

/// A certificate request. Our CA reads only the key in it; others want the name too.
fn request(key: &KeyPair, identity: &SpiffeId) -> Result<String, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let uri = identity.to_string().try_into().map_err(Error::Request)?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.serialize_request(key).and_then(|csr| csr.pem()).map_err(Error::Request)
}

/// Takes the CA's answer if it is what was asked for: a certificate for our key and identity.
fn accept(
    chain: &[String],
    key: &KeyPair,
    identity: &SpiffeId,
    now: OffsetDateTime,
) -> Result<Issued, Error> {
    let wrong = |what: String| Error::Answer(what);
    // The last one is the root, which the other side has.
    let own = match chain {
        [] => return Err(wrong("it holds no certificate".to_owned())),
        [only] => std::slice::from_ref(only),
        [own @ .., _root] => own,
    };
    let unreadable = |error: crate::ca::Error| wrong(error.to_string());
    let ders = certificates_in_pem(&own[0], "its first certificate").map_err(unreadable)?;
    let leaf = Certificate::from_der(&ders[0], "its first certificate").map_err(unreadable)?;
    if leaf.public_key != key.subject_public_key_info() {
        return Err(wrong("the certificate is for another key".to_owned()));
    }
    if leaf.identity() != Some(identity) {
        let names: Vec<String> = leaf.identities.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        return Err(wrong(format!("the certificate is for {names:?}, and this pod is {identity}")));
    }
    if leaf.not_after <= now {
        return Err(wrong(format!("the certificate expired on {}", leaf.not_after)));
    }
    Ok(Issued {
        chain_pem: own.iter().map(|pem| pem.trim_end().to_owned() + "\n").collect(),
        key_pem: key.serialize_pem(),
        issued_at: now,
        not_after: leaf.not_after,
    })
}

/// When to renew: at half life, up to a twentieth of it sooner or later, so that pods that started
/// together do not ask together. `random` is between 0 and 1.
fn renewal(issued: &Issued, random: f64) -> OffsetDateTime {
    let life = issued.not_after - issued.issued_at;
    issued.issued_at + life * (0.475 + 0.05 * random)
}

async fn sleep_until(due: OffsetDateTime) {
    loop {
        let Ok(left) = Duration::try_from(due - OffsetDateTime::now_utc()) else { return };
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        if left.is_zero() {
            return;
        }
    }
}

/// An error with its causes in one line, for the log.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let what = error.to_string();
        // Some libraries repeat their cause in their own words.
        if !text.ends_with(&what) {
            text = format!("{text}: {what}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{Authority, Serial, Validity, issue};

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_772_366_400).unwrap()
    }

    fn me() -> SpiffeId {
        "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
    }

    /// What the CA would answer to a request with `key`, for `identity`.
    fn answer(key: &KeyPair, identity: &SpiffeId) -> Vec<String> {
        let authority = Authority::self_signed(now(), Serial::from_bytes([1; 16])).unwrap();
        let day = Validity::starting(now(), Duration::from_hours(24));
        let serial = Serial::from_bytes([2; 16]);
        let leaf = issue(&request(key, &me()).unwrap(), identity, serial, day, &authority).unwrap();
        vec![leaf, authority.root_pem().to_owned()]
    }

    #[test]
    fn takes_what_it_asked_for_and_leaves_the_root_out() {
        let key = KeyPair::generate().unwrap();
        let chain = answer(&key, &me());
        let issued = accept(&chain, &key, &me(), now()).unwrap();
        assert_eq!(issued.chain_pem.trim(), chain[0].trim());
        assert_eq!(issued.not_after, now() + Duration::from_hours(24));
    }

    #[test]
    fn refuses_anything_else() {
        let key = KeyPair::generate().unwrap();
        let other: SpiffeId = "spiffe://cluster.local/ns/shop/sa/other".parse().unwrap();
        let late = now() + Duration::from_hours(48);
        let cases = [
            ("no certificate", accept(&[], &key, &me(), now())),
            ("is not a certificate", accept(&["-----BEGIN".to_owned()], &key, &me(), now())),
            (
                "another key",
                accept(&answer(&KeyPair::generate().unwrap(), &me()), &key, &me(), now()),
            ),
            ("sa/other", accept(&answer(&key, &other), &key, &me(), now())),
            ("expired", accept(&answer(&key, &me()), &key, &me(), late)),
        ];
        for (want, got) in cases {
            let got = got.unwrap_err().to_string();
            let empty = want == "is not a certificate" && got.contains("is empty");
            assert!(got.contains(want) || empty, "want {want:?}, got {got:?}");
        }
    }

    #[test]
    fn renews_around_half_life() {
        let issued = Issued {
            chain_pem: String::new(),
            key_pem: String::new(),
            issued_at: now(),
            not_after: now() + Duration::from_secs(1000),
        };
        assert_eq!(renewal(&issued, 0.0), now() + Duration::from_secs(475));
        assert_eq!(renewal(&issued, 1.0), now() + Duration::from_secs(525));
    }
}
