//! Rules as text, for the tools that hand them to the kernel. Pure.

mod iptables;
mod nftables;

pub use iptables::{Saved, iptables};
pub use nftables::{NFT_TABLE, nftables};

pub(super) use iptables::{
    back, program, remember as remember_iptables, without as without_iptables,
};
pub(super) use nftables::{nft_family, remember as remember_nftables, without as without_nftables};

/// Adds a line to a text.
macro_rules! line {
    ($text:expr, $($format:tt)*) => {{
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = writeln!($text, $($format)*);
    }};
}
use line;
