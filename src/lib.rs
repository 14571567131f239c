//! Meshwright: a service mesh for Kubernetes.
//!
//! The map of the code, in the order in which configuration flows:
//!
//! ```text
//! API server ─▶ watch::Snapshot ─▶ mesh::Mesh ─▶ plan::* ─▶ envoy resources ─▶ xds::Session ─▶ Envoy
//! ```
//!
//! [`mesh`], [`plan`] and [`envoy`] are pure: no clock, randomness, environment or I/O
//! (`tests/layering.rs` holds them to it). Each returns `(value, Vec<Diagnostic>)`; [`status`] writes
//! the diagnostics to the objects they came from, and [`webhook`] refuses with the same words.
//! [`control_plane`] drives the pipeline; [`operator`], [`agent`] and [`redirect`] are the other roles
//! of the one binary, and [`cni`] is on every node where pods may not redirect by themselves.

pub mod agent;
pub mod api;
pub mod ca;
pub mod cli;
pub mod cni;
pub mod control_plane;
pub mod diagnostic;
pub mod envoy;
pub mod identity;
pub mod mesh;
pub mod operator;
pub mod plan;
pub mod redirect;
pub mod runtime;
pub mod status;
pub mod watch;
pub mod webhook;
pub mod xds;
