//! Admission: injects the proxy into pods and refuses configuration that cannot work.
//!
//! [`inject`] and [`validate`] are pure; [`review`] is the edge that speaks AdmissionReview and never
//! panics; [`server`] serves it over TLS with the certificate that [`certificate`] issues.

pub mod certificate;
pub mod difference;
pub mod events;
pub mod inject;
pub mod metrics;
pub mod review;
pub mod server;
pub mod validate;
