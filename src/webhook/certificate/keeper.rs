//! Keeps the webhook's certificate in a Secret that all replicas share, and in force.
//!
//! Any replica makes or renews it; the API server's optimistic locking lets one of them win, and
//! all of them take what the Secret then holds.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{Bundle, Error as CertificateError};
use crate::{
    api::meshwright::labels::{MANAGED_BY, MANAGER},
    runtime::tls::LiveTls,
};

/// Name of the Secret.
pub const SECRET: &str = "meshwright-webhook-tls";
/// How often the clock is looked at. A laptop may have slept through a timer.
const CHECK_INTERVAL: Duration = Duration::from_hours(1);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("cannot read or write Secret {SECRET}: {0}")]
    Api(#[from] Box<kube::Error>),
}

/// Keeps the certificate in force as long as [`Keeper::run`] runs.
pub struct Keeper {
    secrets: Api<Secret>,
    names: BTreeSet<String>,
    tls: Arc<LiveTls>,
    trusted: watch::Sender<String>,
    in_force: Bundle,
}

impl Keeper {
    /// Loads the certificate or makes one for `names`.
    pub async fn start(
        client: Client,
        namespace: &str,
        names: BTreeSet<String>,
    ) -> Result<Self, Error> {
        let secrets = Api::namespaced(client, namespace);
        let in_force = ensure(&secrets, &names).await?;
        let tls = Arc::new(LiveTls::new(in_force.server_config()?));
        let trusted = watch::Sender::new(in_force.ca.clone());
        Ok(Self { secrets, names, tls, trusted, in_force })
    }

    /// What to serve with.
    pub fn tls(&self) -> Arc<LiveTls> {
        self.tls.clone()
    }

    /// PEM of the CAs that the API server is to trust; changes when they do.
    pub fn trusted(&self) -> watch::Receiver<String> {
        self.trusted.subscribe()
    }

    /// Follows the Secret and renews what is due, until dropped.
    pub async fn run(mut self) {
        let only_ours = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
        let mut changes =
            std::pin::pin!(watcher(self.secrets.clone(), only_ours).default_backoff());
        let mut pause = CHECK_INTERVAL;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(event) = changes.next() => if event.is_err() { continue },
            }
            pause = match self.refresh().await {
                Ok(()) => CHECK_INTERVAL,
                Err(error) => {
                    tracing::warn!(%error, "the webhook's certificate is not up to date");
                    RETRY_INTERVAL
                }
            };
        }
    }

    async fn refresh(&mut self) -> Result<(), Error> {
        let bundle = ensure(&self.secrets, &self.names).await?;
        if bundle == self.in_force {
            return Ok(());
        }
        self.tls.replace(bundle.server_config()?);
        self.trusted.send_replace(bundle.ca.clone());
        self.in_force = bundle;
        tracing::info!("the webhook serves with a new certificate");
        Ok(())
    }
}

/// The certificate that the Secret holds, made or renewed where that is due.
async fn ensure(secrets: &Api<Secret>, names: &BTreeSet<String>) -> Result<Bundle, Error> {
    // Whoever loses a race reads what the winner wrote; a third round means something else is wrong.
    for _ in 0..3 {
        let stored = secrets.get_opt(SECRET).await.map_err(Box::new)?;
        let bundle = stored.as_ref().and_then(read);
        let now = OffsetDateTime::now_utc();
        let leaf = bundle.as_ref().and_then(|bundle| bundle.leaf().ok());
        if let (Some(bundle), Some(leaf)) = (&bundle, &leaf)
            && !leaf.is_due(names, now)
            && bundle.server_config().is_ok()
        {
            return Ok(bundle.clone());
        }
        // A second operator (one outside the cluster, say) may need other names.
        let names = names.iter().chain(leaf.iter().flat_map(|leaf| &leaf.names)).cloned().collect();
        let fresh = Bundle::issue(&names, now, bundle.as_ref())?;
        match write(secrets, stored, &fresh).await {
            Ok(()) => return Ok(fresh),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Box::new(error).into()),
        }
    }
    let busy =
        CertificateError::Parse(format!("Secret {SECRET} changes faster than it can be read"));
    Err(busy.into())
}

async fn write(
    secrets: &Api<Secret>,
    stored: Option<Secret>,
    bundle: &Bundle,
) -> Result<(), kube::Error> {
    let data = [
        ("ca.crt", &bundle.ca),
        ("ca.key", &bundle.ca_key),
        ("tls.crt", &bundle.certificate),
        ("tls.key", &bundle.key),
    ];
    let data = data.map(|(key, pem)| (key.to_owned(), ByteString(pem.clone().into_bytes())));
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            resource_version: stored.as_ref().and_then(ResourceExt::resource_version),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    };
    if stored.is_some() {
        secrets.replace(SECRET, &PostParams::default(), &secret).await.map(drop)
    } else {
        secrets.create(&PostParams::default(), &secret).await.map(drop)
    }
}

fn read(secret: &Secret) -> Option<Bundle> {
    let text = |key: &str| {
        let bytes = &secret.data.as_ref()?.get(key)?.0;
        String::from_utf8(bytes.clone()).ok()
    };
    Some(Bundle {
        ca: text("ca.crt")?,
        ca_key: text("ca.key")?,
        certificate: text("tls.crt")?,
        key: text("tls.key")?,
    })
}
