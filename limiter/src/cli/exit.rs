// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! How a command ends.

/// Nothing is loaded, or what is loaded is attached to nothing: `limiter status` ends with this code, so that scripts can
/// tell.
pub const NOT_IN_FORCE: u8 = 3;
/// What was asked for cannot be.
pub const WRONG_USAGE: u8 = 2;
/// Something else went wrong.
pub const FAILED: u8 = 1;

/// What was asked for cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);
