//! Revisions side by side, their removal, and upgrades of definitions, against an API server in memory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "operator/api_server.rs"]
mod api_server;
#[path = "inject/fixture.rs"]
mod fixture;
#[path = "inject/webhook.rs"]
mod webhook;

#[path = "operator_upgrades/definitions.rs"]
mod definitions;
#[path = "operator_upgrades/double.rs"]
mod double;
#[path = "operator_upgrades/handover.rs"]
mod handover;
#[path = "operator_upgrades/removal.rs"]
mod removal;
