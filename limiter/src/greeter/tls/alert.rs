// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The alert that refuses a client to which nothing can be said inside TLS.

/// A whole record: an alert (RFC 8446, 5.1 and 6), fatal, `access_denied`. It needs no handshake and no answer to
/// one: a client that has just said hello reads it in place of the server's hello.
///
/// The version is that of TLS 1.2, which is what every record of TLS 1.3 has, too. Why this alert:
/// `docs/decisions/alert-says-denied.md`.
pub const REFUSED: [u8; 7] = [ALERT, 3, 3, 0, 2, FATAL, ACCESS_DENIED];

/// The same for a client that speaks no TLS 1.2: "the protocol version the peer has attempted to negotiate is
/// recognized but not supported" (RFC 8446, 6.2).
pub const TOO_OLD: [u8; 7] = [ALERT, 3, 3, 0, 2, FATAL, PROTOCOL_VERSION];

/// The record type (RFC 8446, 5.1).
const ALERT: u8 = 21;
/// The level (RFC 8446, 6).
const FATAL: u8 = 2;
/// "A valid certificate or PSK was received, but when access control was applied, the sender decided not to proceed
/// with negotiation" (RFC 8446, 6.2).
const ACCESS_DENIED: u8 = 49;
const PROTOCOL_VERSION: u8 = 70;
