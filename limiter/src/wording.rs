// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a refused client is told: the line of its protocol, in the limiter's words or the administrator's.
//!
//! All of it is pure. The configuration checks with it that every line is one, however long its values get, and the
//! greeter composes with it what it sends. The codes are the protocol's, and always the limiter's.

mod imap;
mod pop3;
mod protocols;
mod retry;
mod sieve;
mod smtp;
mod template;
mod text;
mod words;

pub use protocols::{MAX_LINE, is_ascii, line, longest, title};
pub use retry::Retry;
pub use template::{Fault, Placeholder, Template};
pub use text::Text;
pub use words::{TOLD, Wording};
