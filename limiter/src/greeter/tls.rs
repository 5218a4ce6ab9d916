// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! TLS where it starts at once (RFC 8314, 3).
//!
//! The daemon has the keys: `keeper` and `certificate` read them, and `signer` signs with them. The greeter's process
//! has the handshakes, and asks (`asker`).
//!
//! With a certificate the reason goes through a whole handshake, so that the client shows it. Without one, or where
//! handshakes would cost too much, the client gets an [`alert`]: it says at once that the server refused.

mod alert;
mod asker;
mod bucket;
mod budget;
mod certificate;
mod cpu;
mod handshake;
mod keeper;
mod names;
mod ports;
mod server;
mod signer;
#[cfg(test)]
mod tests;

pub use alert::REFUSED;
pub use asker::Asker;
pub use budget::Budget;
pub use certificate::{Public, Set, Usable};
pub use handshake::{End, Handshake, Step};
pub use keeper::{Certificate, Keeper, Report, State};
pub use ports::{Ports, Speaks};
pub use server::{Common, offered};
pub use signer::Unsigned;
