//! The CLI verbs, one file each.

pub mod crds;
