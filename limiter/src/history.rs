// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The history: who held how many connections, and who was refused when, how often and why, in an embedded database.
//!
//! `writer` is the daemon's thread. Once a minute it has `sample` look at the kernel's maps; `baselines`, `durations` and
//! `aggregate` make rows of that, and are pure; `store` writes them, `tidy` keeps the database small. Others read it by
//! [`recent`], [`days`] and [`rows`], while the daemon writes and without a daemon.

mod aggregate;
mod baselines;
mod clock;
mod durations;
mod fault;
mod forget;
mod read;
mod report;
mod row;
mod sample;
mod schema;
mod store;
mod tidy;
mod users;
mod writer;

pub use clock::{Times, local, now_s, utc};
pub use forget::{Forgotten, forget};
pub use read::{Asked, Day, Days, days, first_day, nothing, recent, rows, services};
pub use report::{Gap, Report};
pub use row::{Durations, Quarter};
pub use users::Users;
pub use writer::{Thread, start};

#[cfg(test)]
mod tests;
