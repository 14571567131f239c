//! The pod's DNS: answers for the mesh's hosts, forwards the rest.
//!
//! ```text
//! packet ─▶ wire::Request ─▶ answer::decide (the table) ─▶ reply
//!                                   └─▶ forward: cache, one question at a time ─▶ upstream ─▶ reply
//! ```
//!
//! [`wire`], [`answer`], [`cache`] and [`resolv`] are pure. What the mesh knows is answered from the
//! table, also while the control plane is away; everything else goes to the servers in
//! `/etc/resolv.conf` from the agent's own uid, which redirection leaves alone. While the table is
//! empty everything is forwarded. Nothing here waits for an upstream before the pod may be ready.

pub mod answer;
pub mod cache;
mod figures;
mod forward;
pub mod resolv;
mod resolver;
mod server;
mod upstream;
pub mod wire;

pub use figures::Figures;
pub use resolver::{Config, Resolver};
pub use server::{Sockets, serve};
