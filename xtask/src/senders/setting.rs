// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is the same for all turns.

use std::{net::Ipv4Addr, time::Duration};

/// The sender, at an address of the documentation (RFC 5737).
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// The receiver, likewise.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 25);

/// SMTP.
pub const PORT: u16 = 25;

/// SMTP where TLS starts at once.
pub const TLS_PORT: u16 = 465;

/// What a source may hold.
pub const LIMIT: usize = 3;

/// What is in the queue.
pub const MESSAGES: usize = 50;

/// Whose mail it is; the number of the message stands before the @, behind [`RECIPIENT`].
pub const DOMAIN: &str = "mx.example.net";
/// What all its users are called, before their number.
pub const RECIPIENT: &str = "to-";

/// When a sender with scaled timers tries again.
pub const SCALED: Duration = Duration::from_secs(10);
