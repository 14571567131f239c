//! The CNI plugin, which the daemon copies to the node and the container runtime runs there for every
//! pod. It must not need anything of the node: built with `-C target-feature=+crt-static`.
//!
//! The two modules are compiled in, not linked from the library, of which too much would come along:
//! exception tables by the megabyte, and what the TLS library does before `main`.

#![cfg_attr(not(test), expect(dead_code, reason = "the daemon's side of what the two share"))]

use std::{
    io::{Read, Write},
    process::ExitCode,
};

mod plugin;
mod sandbox;

fn main() -> ExitCode {
    let mut stdin = String::new();
    // What cannot be read is no JSON, and that is said.
    drop(std::io::stdin().read_to_string(&mut stdin));
    // The runtime logs what is on standard error.
    let complain = |complaint: &dyn std::fmt::Display| {
        drop(writeln!(std::io::stderr(), "meshwright-cni: {complaint}"));
    };
    let reply = plugin::run(|name| std::env::var(name).ok(), &stdin, complain);
    let printed = std::io::stdout().write_all(reply.stdout.as_bytes());
    if reply.success && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
