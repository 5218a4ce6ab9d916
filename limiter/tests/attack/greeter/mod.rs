// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Refused clients: every one of them reads the whole line, and nobody keeps the others from it.

mod crowd;
mod everyone;
mod full;
mod horde;
mod silence;
