//! What a process has used, from /proc.

use std::{fs, time::Duration};

use anyhow::Context;

#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes.
    pub resident: u64,
    pub peak: u64,
}

/// Clock ticks a second, the same on every Linux that runs Rust's standard targets.
const TICKS: u64 = 100;

/// Of a process, or of this one.
pub fn usage(pid: Option<u32>) -> anyhow::Result<Usage> {
    let process = pid.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
    let read = |file: &str| {
        let path = format!("/proc/{process}/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let stat = read("stat")?;
    // The name before may hold spaces; user and system time are the 12th and 13th fields behind.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|t| t.parse().unwrap_or(0u64));
    let status = read("status")?;
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Ok(Usage {
        cpu: Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS),
        resident: kilobytes("VmRSS:").unwrap_or(0) << 10,
        peak: kilobytes("VmHWM:").unwrap_or(0) << 10,
    })
}

/// Lets the peak of this process count from now.
pub fn reset_peak() {
    // Without the right to it the peak counts from the start, which is only ever worse.
    drop(fs::write("/proc/self/clear_refs", "5"));
}
