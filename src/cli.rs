//! The command line: verbs, one file each, and the roles that two binaries share.

pub mod check_webhooks;
pub mod crds;
pub mod inject;
pub mod pod;
pub mod printer;
