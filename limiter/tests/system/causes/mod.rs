// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why an address holds so many connections: each cause made for real, with Debian's mail software, and what the limiter
//! finds out about it.

mod evidence;
mod scenes;
mod ten;
