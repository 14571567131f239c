//! Snapshot → [`Mesh`]: names resolved, rules checked, everything indexed. Pure.

pub mod model;

pub use model::*;
