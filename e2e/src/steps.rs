//! What a person sees: a line for each step with its time, a spinner where there is a terminal.
//!
//! The only module that writes to the standard output.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this module is the printer")]

use std::{
    io::IsTerminal,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt;

/// Runs steps one after another and reports each.
#[derive(Debug)]
pub struct Steps {
    terminal: bool,
    started: Instant,
}

impl Steps {
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), started: Instant::now() }
    }

    /// Runs one step; its title and time are printed when it ends.
    pub fn run<T>(&mut self, title: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
        interrupt::checkpoint();
        let started = Instant::now();
        let progress = Progress::start(self.terminal, title);
        let result = f();
        progress.stop();
        interrupt::checkpoint();
        let time = seconds(started.elapsed());
        match (&result, self.terminal) {
            (Ok(_), true) => println!("\x1b[32m✓\x1b[0m {title} \x1b[2m{time}\x1b[0m"),
            (Ok(_), false) => println!("ok      {title} ({time})"),
            (Err(_), true) => println!("\x1b[31m✗\x1b[0m {title} \x1b[2m{time}\x1b[0m"),
            (Err(_), false) => println!("FAILED  {title} ({time})"),
        }
        result
    }

    /// Prints a line between steps.
    #[expect(clippy::unused_self, reason = "steps own the screen while they run")]
    pub fn say(&self, line: &str) {
        interrupt::checkpoint();
        println!("{line}");
    }

    /// Time since the first step.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Prints a line where there are no steps.
pub fn print(line: &str) {
    println!("{line}");
}

/// Prints an error: what failed, then why.
pub fn print_error(error: &Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  cause: {cause}");
    }
}

/// A time as people read it.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(100) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

/// What shows that a step is still at work.
enum Progress {
    Spinner(ProgressBar),
    Reminder(mpsc::Sender<()>),
}

impl Progress {
    fn start(terminal: bool, title: &str) -> Self {
        if terminal {
            let spinner = ProgressBar::new_spinner().with_message(title.to_owned());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                spinner.set_style(style);
            }
            spinner.enable_steady_tick(Duration::from_millis(100));
            return Self::Spinner(spinner);
        }
        let (stop, stopped) = mpsc::channel();
        let title = title.to_owned();
        thread::spawn(move || {
            let started = Instant::now();
            while stopped.recv_timeout(Duration::from_secs(30)) == Err(RecvTimeoutError::Timeout) {
                println!("...     {title} ({} so far)", seconds(started.elapsed()));
            }
        });
        Self::Reminder(stop)
    }

    fn stop(self) {
        match self {
            Self::Spinner(spinner) => spinner.finish_and_clear(),
            Self::Reminder(stop) => drop(stop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(seconds(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
