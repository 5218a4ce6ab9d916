// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter greeter`: the process itself.

use std::process::ExitCode;

use anyhow::Result;

use super::launch::Part;
use crate::{
    greeter::{channel, child, messages::Notice},
    sandbox,
};

/// Serves until the daemon says otherwise.
///
/// # Errors
/// Why it cannot; the daemon has been told.
pub fn serve(part: Part) -> Result<ExitCode> {
    let ends = part.ends()?;
    // For ps and ss. Otherwise it is `exe`, by the path.
    let _a_name_is_no_matter = rustix::thread::set_name(c"limiter-greeter");
    let told = ends.orders.try_clone()?;
    std::panic::set_hook(Box::new(move |panic| {
        let _unheard = channel::send(&told, &Notice::Failed(panic.to_string()), &[]);
        std::process::exit(101);
    }));
    child::serve(ends, || sandbox::enter(part.confinement()))?;
    Ok(ExitCode::SUCCESS)
}
