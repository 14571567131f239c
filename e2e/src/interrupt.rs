//! Ctrl-C, SIGTERM and a closed terminal: whatever this run started is taken away before the process ends.
//!
//! Every command is started behind a [`gate`]. The first signal closes the gate for good, ends the
//! commands that run, and calls the clean-ups in reverse order: nothing new can start meanwhile, and
//! the interrupted thread stops at the next gate or [`checkpoint`].

use std::{
    cell::Cell,
    fs,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{process, steps};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static GATE: Mutex<()> = Mutex::new(());
static CLEANUPS: Mutex<Vec<(u64, Cleanup)>> = Mutex::new(Vec::new());

type Cleanup = Box<dyn FnOnce() + Send>;

thread_local! {
    static CLEANING: Cell<bool> = const { Cell::new(false) };
}

/// Starts the thread that waits for signals.
pub fn install() -> Result<()> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot watch for signals")?;
    thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            steps::print("\ninterrupted: taking away what this run started …");
            thread::spawn(clean_up);
        }
        for _ in signals {
            steps::print("still cleaning up; this takes a few seconds");
        }
    });
    Ok(())
}

/// Registers what an interrupt must undo. Dropping the guard unregisters it.
pub fn on_interrupt(cleanup: impl FnOnce() + Send + 'static) -> Undo {
    static NEXT: Mutex<u64> = Mutex::new(0);
    let mut next = lock(&NEXT);
    *next += 1;
    lock(&CLEANUPS).push((*next, Box::new(cleanup)));
    Undo(*next)
}

/// Keeps a clean-up registered.
#[derive(Debug)]
#[must_use = "the clean-up is unregistered when this is dropped"]
pub struct Undo(u64);

impl Drop for Undo {
    fn drop(&mut self) {
        // A step that fails because its commands were ended must not take its clean-up back.
        checkpoint();
        lock(&CLEANUPS).retain(|(id, _)| *id != self.0);
    }
}

/// Held while something is started or made that a clean-up must find. After an interrupt it is never
/// given again, except to the clean-up itself.
pub fn gate() -> Option<MutexGuard<'static, ()>> {
    if CLEANING.get() {
        return None;
    }
    // After an interrupt the clean-up holds it until the process ends.
    let guard = lock(&GATE);
    if INTERRUPTED.load(Ordering::SeqCst) {
        drop(guard);
        checkpoint();
        return None;
    }
    Some(guard)
}

/// Stops this thread for good once the run is interrupted: the clean-up ends the process.
pub fn checkpoint() {
    while INTERRUPTED.load(Ordering::SeqCst) && !CLEANING.get() {
        thread::park();
    }
}

fn clean_up() {
    CLEANING.set(true);
    let closed = lock(&GATE);
    end_children();
    loop {
        // Popped one by one: a clean-up must not hold the list while it works.
        let Some((_, cleanup)) = lock(&CLEANUPS).pop() else { break };
        cleanup();
    }
    steps::print("gone: nothing of this run is left");
    drop(closed);
    #[expect(clippy::exit, reason = "the interrupted thread is parked for good")]
    std::process::exit(130);
}

/// Ends every command of this run, with grace: cargo and go remove their temporary files.
fn end_children() {
    let me = std::process::id();
    process::signal("TERM", &descendants(me));
    let deadline = Instant::now() + Duration::from_secs(3);
    while !descendants(me).is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    process::signal("KILL", &descendants(me));
}

/// Living processes below `root` that are in its session. The components of a cluster have sessions
/// of their own, and their own way to end.
fn descendants(root: u32) -> Vec<u32> {
    let session = process::parent_and_session(root).map(|(_, session)| session);
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, process::parent_and_session(pid)?)))
        .filter(|(_, (_, other))| Some(*other) == session)
        .map(|(pid, (parent, _))| (pid, parent))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
