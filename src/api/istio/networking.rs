//! `networking.istio.io`: one file a kind.
//!
//! Fields that Istio restricts to a set of values are plain strings here: a value that we do not
//! know must become a diagnostic, not an object that cannot be read.

pub mod destination_rule;
pub mod gateway;
pub mod service_entry;
pub mod virtual_service;

pub use destination_rule::{DestinationRule, DestinationRuleSpec};
pub use gateway::{Gateway, GatewaySpec};
pub use service_entry::{ServiceEntry, ServiceEntrySpec};
pub use virtual_service::{VirtualService, VirtualServiceSpec};
