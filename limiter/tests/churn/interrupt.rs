// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Ctrl-C: all that was set up is taken down again.

use std::sync::Arc;

use crate::churn::Churn;

/// From now on Ctrl-C ends the churn, and the test with it, in good order.
pub fn heed(churn: &Arc<Churn>) {
    let churn = Arc::clone(churn);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            churn.interrupt();
        }
    });
}
