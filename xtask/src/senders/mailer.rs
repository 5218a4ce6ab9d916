// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What a mail server has to be able to do, to send or to receive here.

use anyhow::Result;

use super::{
    host::Host,
    plan::Timers,
    setting::{DOMAIN, RECIPIENT},
};

/// A mail server.
pub trait Mailer: Sync {
    /// Starts it where mail is received; a source may hold so many connections to it, if anything is said.
    ///
    /// # Errors
    ///
    /// When it does not start.
    fn receive(&self, host: &mut Host, limit: Option<usize>) -> Result<()>;

    /// Starts it where mail is sent, to this port, and gives it the messages, all with this text. It does not
    /// connect yet.
    ///
    /// # Errors
    ///
    /// When it does not start, or takes no message.
    fn queue(&self, host: &mut Host, port: u16, timers: Timers, message: &str) -> Result<()>;

    /// Lets it deliver them all at once, as if they had come in this moment.
    ///
    /// # Errors
    ///
    /// When it does not.
    fn release(&self, host: &mut Host, timers: Timers) -> Result<()>;

    /// Does what stands in for a timer that cannot be set, or not from then on; called every [`SCALED`](super::setting::SCALED) where timers are scaled.
    ///
    /// # Errors
    ///
    /// When it cannot be done.
    fn nudge(&self, _host: &mut Host) -> Result<()> {
        Ok(())
    }

    /// How many messages it has received.
    fn received(&self, host: &Host) -> usize;

    /// How many times it has put a message off.
    fn put_off(&self, host: &Host) -> usize;
}

/// The text of a message of about so many KiB.
pub fn message(kib: usize) -> String {
    // 64 bytes with the end of the line.
    let line = format!("{:.<63}\n", "Hello.");
    format!("From: <{FROM}>\nSubject: one of many\n\n{}", line.repeat(16 * kib))
}

/// Who sends them.
pub const FROM: &str = "list@sender.example.org";

/// Who gets the message with this number.
pub fn recipient(number: usize) -> String {
    format!("{RECIPIENT}{number}@{DOMAIN}")
}
