//! What keeps a leader that was deposed, or may have been, from writing.
//!
//! A controller that is stopped stops at its next await; one that is stuck in a call, or whose
//! process was frozen, does not know yet. So whether this process leads is asked again right before
//! each write, by the clock.

use std::sync::{Arc, Mutex, PoisonError};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use tokio::{sync::watch, time::Instant};

/// The answer to a write of a process that does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead any more: the write was not sent")]
pub struct Deposed;

/// Whether this process leads. Written by the election, read by everybody.
#[derive(Debug)]
pub(super) struct Office {
    standing: Mutex<Standing>,
    leads: watch::Sender<bool>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    /// Counts the times that this process came to lead.
    term: u64,
    /// Until when nobody else may lead; nothing while this process does not.
    until: Option<Instant>,
}

impl Default for Office {
    fn default() -> Self {
        Self { standing: Mutex::default(), leads: watch::Sender::new(false) }
    }
}

impl Office {
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// This process leads, or goes on to.
    pub(super) fn enter(&self, until: Instant) {
        self.change(|standing| {
            standing.term += u64::from(standing.until.is_none());
            standing.until = Some(until);
        });
        self.announce(true);
    }

    /// This process does not lead, or no longer.
    pub(super) fn leave(&self) {
        self.change(|standing| standing.until = None);
        self.announce(false);
    }

    /// How long this process may go on without another renewal.
    pub(super) fn left(&self) -> Option<std::time::Duration> {
        let left = self.standing().until?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn standing(&self) -> Standing {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.standing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn announce(&self, leads: bool) {
        self.leads.send_if_modified(|current| {
            let changed = *current != leads;
            if changed {
                tracing::info!(leads, "leadership changed");
            }
            *current = leads;
            changed
        });
    }
}

/// Lets writes through while this process leads.
#[derive(Clone, Debug)]
pub struct Fence {
    /// Nothing where there is no election.
    office: Option<Arc<Office>>,
    term: Option<u64>,
}

impl Fence {
    pub(super) fn new(office: Arc<Office>) -> Self {
        Self { office: Some(office), term: None }
    }

    /// For processes that are alone by construction: everything passes.
    pub fn open() -> Self {
        Self { office: None, term: None }
    }

    /// The fence of the term that runs now: what began in it does not go on in a later one.
    #[must_use]
    pub fn of_this_term(&self) -> Self {
        let term = self.office.as_ref().map(|office| office.standing().term);
        Self { office: self.office.clone(), term }
    }

    /// Whether a write may be sent now.
    pub fn check(&self) -> Result<(), Deposed> {
        let Some(office) = &self.office else { return Ok(()) };
        let standing = office.standing();
        let same_term = self.term.is_none_or(|term| term == standing.term);
        if same_term && standing.until.is_some_and(|until| Instant::now() < until) {
            Ok(())
        } else {
            Err(Deposed)
        }
    }

    /// The client with its writes behind the fence. Reads pass.
    pub fn client(&self, client: &Client) -> Client {
        if self.office.is_none() {
            return client.clone();
        }
        let namespace = client.default_namespace().to_owned();
        let (fence, inner) = (self.clone(), client.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (fence, inner) = (fence.clone(), inner.clone());
            async move { fence.pass(&inner, request).await }
        });
        Client::new(service, namespace)
    }

    async fn pass(
        &self,
        client: &Client,
        request: Request<Body>,
    ) -> Result<Response<Body>, tower::BoxError> {
        if *request.method() != Method::GET {
            self.check()?;
        }
        Ok(client.send(request).await?)
    }
}
