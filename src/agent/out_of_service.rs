//! Leaving service before the proxy is replaced in the running pod, and coming back.
//!
//! The operator asks by an annotation of the pod, which the kubelet writes into a file: no network
//! path leads to the agent for it. The proxy goes on serving; it only says that it is not ready and
//! asks those that are connected to go elsewhere. What ends it is the kubelet, with the new image.

use std::{path::PathBuf, time::Duration};

use tokio::time::Instant;

use crate::{
    agent::{admin::Admin, podinfo, readiness::Readiness},
    api::meshwright::labels::OUT_OF_SERVICE,
};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(1);
/// An operator that has forgotten the pod must not keep it away for ever.
const LONGEST: Duration = Duration::from_mins(10);

/// What the annotation asks for.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Leave,
    Return,
}

/// Whether the proxy is out of service, and by which value of the annotation.
#[derive(Debug, Default)]
struct Service {
    /// The value that was there last. One that was there when the agent started has had its effect:
    /// this is the new proxy.
    seen: Option<String>,
    left: Option<Instant>,
}

impl Service {
    fn look(&mut self, now: Option<String>, at: Instant) -> Option<Turn> {
        let changed = now != self.seen;
        let asked = now.is_some();
        self.seen = now;
        let overdue = self.left.is_some_and(|left| at.duration_since(left) >= LONGEST);
        match (changed, asked, self.left) {
            (true, true, _) => {
                self.left = Some(at);
                Some(Turn::Leave)
            }
            (_, false, Some(_)) => {
                self.left = None;
                Some(Turn::Return)
            }
            _ if overdue => {
                self.left = None;
                tracing::warn!("nobody replaced the proxy: it comes back into service");
                Some(Turn::Return)
            }
            _ => None,
        }
    }
}

/// Follows the annotation, for ever.
pub(super) async fn follow(folder: PathBuf, admin: Admin, readiness: Readiness) {
    let mut service = Service { seen: asked(&folder), left: None };
    loop {
        tokio::time::sleep(POLL).await;
        let (path, away) = match service.look(asked(&folder), Instant::now()) {
            Some(Turn::Leave) => ("/healthcheck/fail", true),
            Some(Turn::Return) => ("/healthcheck/ok", false),
            None => continue,
        };
        tracing::info!(away, "the proxy is to be replaced, or not any more");
        readiness.out_of_service(away);
        if let Err(error) = admin.post(path).await {
            tracing::warn!(path, %error, "cannot tell Envoy");
        }
    }
}

/// The file is in memory and small; tokio's own reading would keep a thread for it in every pod.
fn asked(folder: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("annotations")).ok()?;
    podinfo::value(&text, OUT_OF_SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_when_asked_and_returns_when_not_any_more() {
        let (mut service, now) = (Service::default(), Instant::now());
        assert_eq!(service.look(None, now), None);
        assert_eq!(service.look(Some("a".to_owned()), now), Some(Turn::Leave));
        assert_eq!(service.look(Some("a".to_owned()), now), None);
        assert_eq!(service.look(None, now), Some(Turn::Return));
        assert_eq!(service.look(None, now), None);
    }

    #[test]
    fn what_was_asked_of_the_former_proxy_is_not_asked_of_this_one() {
        let now = Instant::now();
        let mut service = Service { seen: Some("a".to_owned()), left: None };
        assert_eq!(service.look(Some("a".to_owned()), now), None);
        assert_eq!(service.look(None, now), None);
        assert_eq!(service.look(Some("b".to_owned()), now), Some(Turn::Leave));
    }

    #[test]
    fn returns_by_itself_when_it_was_forgotten() {
        let (mut service, now) = (Service::default(), Instant::now());
        assert_eq!(service.look(Some("a".to_owned()), now), Some(Turn::Leave));
        let just_before = now + LONGEST.checked_sub(POLL).unwrap();
        assert_eq!(service.look(Some("a".to_owned()), just_before), None);
        assert_eq!(service.look(Some("a".to_owned()), now + LONGEST), Some(Turn::Return));
        assert_eq!(service.look(Some("a".to_owned()), now + LONGEST * 2), None);
        assert_eq!(service.look(Some("b".to_owned()), now + LONGEST * 3), Some(Turn::Leave));
    }

    #[test]
    fn reads_the_kubelets_file() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(asked(folder.path()), None);
        let text = "a=\"b\"\nmeshwright.dev/out-of-service=\"2026-11-21T10:00:00Z\"\n";
        std::fs::write(folder.path().join("annotations"), text).unwrap();
        assert_eq!(asked(folder.path()), Some("2026-11-21T10:00:00Z".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_proxy_out_of_service_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let nobody = Admin::at(([127, 0, 0, 1], 1).into());
        let readiness = Readiness::new(nobody);
        let following = tokio::spawn(follow(folder.path().to_owned(), nobody, readiness.clone()));
        // Whoever leaves must have begun to look before.
        tokio::time::sleep(POLL / 2).await;
        let file = folder.path().join("annotations");
        std::fs::write(&file, "meshwright.dev/out-of-service=\"now\"\n").unwrap();
        let says = |why: &'static str| {
            let readiness = readiness.clone();
            async move {
                while !readiness.check().await.unwrap_err().contains(why) {
                    tokio::time::sleep(POLL).await;
                }
            }
        };
        says("out of service").await;
        std::fs::write(&file, "").unwrap();
        says("Envoy does not answer").await;
        following.abort();
    }
}
