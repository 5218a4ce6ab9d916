// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the host tells init, and init the host.

use serde::{Deserialize, Serialize};

/// Where init finds the plan, in its file system.
pub const PLACE: &str = "/plan.json";

/// The first that init says: the kernel runs.
pub const UP: &str = "vm: up";

/// The last that init says, followed by [`PASSED`] or by what failed.
pub const RESULT: &str = "vm: result: ";

/// Every test passed, and the kernel has not complained.
pub const PASSED: &str = "passed";

/// What init is told.
#[derive(Deserialize, Serialize)]
pub struct Plan {
    /// Files with modules of the kernel, each after those it depends on.
    pub modules: Vec<String>,
    /// What is to be done once they are loaded.
    pub work: Work,
}

/// What is to be done in the machine.
#[derive(Clone, Deserialize, Serialize)]
pub struct Work {
    /// Programs to run one after the other: test binaries, mostly.
    pub programs: Vec<String>,
    /// Arguments of each.
    pub arguments: Vec<String>,
}
