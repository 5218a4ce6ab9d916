// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Waiters: those for whom there is no place get in, in order, or are told why.
//!
//! Such a client believes it is connected, and hears nothing: the gate has dropped the ACK that completes
//! its handshake, and the kernel keeps the request (`struct tcp_request_sock`) in the SYN queue. Either
//! it gets in, by being asked for its ACK again ([`probe`]), or it is told why not: the request is removed
//! ([`crate::sock_diag`]), and a socket of our own with the same four numbers speaks in its place ([`repair`]).
//!
//! [`mod@line`] decides, and knows neither maps nor sockets; [`Attendant`] does what it says, on a thread of its
//! own, in the network namespace of that thread.

mod attendant;
mod clients;
mod held;
mod line;
mod options;
mod probe;
mod repair;
#[cfg(test)]
mod tests;

pub use attendant::{Attendant, Stop, attend};
