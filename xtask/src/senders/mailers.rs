// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The mail servers: one file each.

use super::{exim::Exim, mailer::Mailer, opensmtpd::OpenSmtpd, plan::Mta, postfix::Postfix};

/// The one that is meant.
pub fn of(mta: Mta) -> &'static dyn Mailer {
    match mta {
        Mta::Postfix => &Postfix,
        Mta::Exim => &Exim,
        Mta::Opensmtpd => &OpenSmtpd,
    }
}
