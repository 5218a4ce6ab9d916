// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The counts, as one reading found them.

use std::collections::HashMap;

use limiter_common::{Count, Key};

/// A count, and what changes whenever a connection is added to it.
pub type Books = HashMap<Key, (Count, u64)>;
