//! Kubernetes Gateway API kinds (`gateway.networking.k8s.io/v1`), trimmed to what we act on and
//! lenient: what an implementation does not know must become a status condition, not a parse error.
