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

/// What init is to do.
#[derive(Deserialize, Serialize)]
pub struct Plan {
    /// Files with modules of the kernel, each after those it depends on.
    pub modules: Vec<String>,
    /// Test binaries.
    pub tests: Vec<String>,
    /// Arguments of each.
    pub arguments: Vec<String>,
}
