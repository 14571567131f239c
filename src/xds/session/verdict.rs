//! Acknowledgements and refusals.

use std::sync::Arc;

use super::{Names, Request, ResourceType, Session, Variant};

/// A resource that a client refuses; it keeps the last one that it accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub kind: ResourceType,
    pub name: Arc<str>,
    /// Of the refused content; `None` if it was a removal, or is no longer published.
    pub version: Option<u64>,
    /// Whether it is this resource: else it is one of several that were sent together.
    pub certain: bool,
    /// The client's words.
    pub message: Arc<str>,
}

impl Session {
    /// Takes note of what the client thinks of a response. Whether the rejections changed.
    pub(super) fn judge(&mut self, kind: ResourceType, request: &Request) -> bool {
        let Some(nonce) = request.nonce else { return false };
        let Some(state) = self.types.get_mut(kind) else { return false };
        let Some(position) = state.in_flight.iter().position(|(sent, _)| *sent == nonce) else {
            return false;
        };
        let answered = state.in_flight.drain(..=position).next_back();
        let Some((_, names)) = answered else { return false };
        match &request.error {
            None => self.accept(kind, &names),
            Some(message) => self.reject(kind, &names, message),
        }
    }

    fn accept(&mut self, kind: ResourceType, names: &Names) -> bool {
        if self.rejected.is_empty() {
            return false;
        }
        let before = self.rejected.len();
        self.rejected.retain(|(other, name), _| *other != kind || !names.contains(name));
        self.rejected.len() != before
    }

    fn reject(&mut self, kind: ResourceType, names: &Names, message: &str) -> bool {
        // Envoy takes the good clusters and listeners of a response and names the others. Of the
        // other types it may drop everything behind the first bad one: send halves, until the bad
        // one stands alone.
        if !kind.is_wildcard() && names.len() > 1 && self.variant == Variant::Delta {
            let (first, second) = names.split_at(names.len() / 2);
            self.types.of(kind).apart.extend([first.into(), second.into()]);
            return false;
        }
        let quoted: Vec<_> = names.iter().filter(|name| message.contains(&***name)).collect();
        let certain = !quoted.is_empty() || names.len() == 1;
        let suspects = if quoted.is_empty() { names.iter().collect() } else { quoted };
        let message: Arc<str> = message.into();
        for name in suspects {
            let version = self.view.get(kind, name).map(|resource| resource.version);
            let (name, message) = (name.clone(), message.clone());
            let rejection = Rejection { kind, name: name.clone(), version, certain, message };
            self.rejected.insert((kind, name), rejection);
        }
        true
    }
}
