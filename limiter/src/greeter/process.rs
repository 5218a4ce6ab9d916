// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The greeter's process, as the daemon sees it: started, watched, answered, and started again.

mod launch;
mod line;
mod serve;
mod supervisor;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub use launch::{Ends, Launched};
pub use launch::{Launch, Part, Program};
pub use line::Line;
pub use serve::serve;
pub use supervisor::{Control, Parts, Steer, Supervisor};
