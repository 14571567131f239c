//! What the DNS counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Figures {
    requests: AtomicU64,
    forwarded: AtomicU64,
    failures: AtomicU64,
    cache_hits: AtomicU64,
}

impl Figures {
    /// A question came.
    pub fn asked(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A question went upstream.
    pub fn forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    /// No server upstream answered a question, and nothing was kept for it.
    pub fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// A question was answered from the cache.
    pub fn hit(&self) {
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Names, without the agent's prefix, and values.
    pub fn values(&self) -> [(&'static str, u64); 4] {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("dns_requests_total", value(&self.requests)),
            ("dns_forwarded_total", value(&self.forwarded)),
            ("dns_failures_total", value(&self.failures)),
            ("dns_cache_hits_total", value(&self.cache_hits)),
        ]
    }
}
