// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The log of `limiter run`: as text on stderr, or in the journal, with fields.

use std::{io::IsTerminal as _, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use tracing_subscriber::{
    EnvFilter,
    filter::LevelFilter,
    fmt::{self, format},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// What the libraries that load programs say of every relocation buries everything else: it has to be asked for by name.
fn without_libraries(filter: EnvFilter, asked: &str) -> Result<EnvFilter> {
    ["aya", "aya_obj", "mio", "tokio"]
        .iter()
        .filter(|name| !asked.contains(**name))
        .try_fold(filter, |filter, name| Ok(filter.add_directive(format!("{name}=warn").parse()?)))
}

/// The log goes to stderr, at the level `RUST_LOG` says, or `info`. Where stderr is the journal, it goes there with its
/// fields, such as `LIMITER_SOURCE`.
pub fn start() -> Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .context("RUST_LOG is not a valid log filter: use a level such as debug, or limiter=debug")?;
    let filter = without_libraries(filter, &std::env::var("RUST_LOG").unwrap_or_default())?;
    let log = tracing_subscriber::registry().with(filter);
    if is_journal()
        && let Ok(journal) = tracing_journald::layer()
    {
        let journal = journal.with_field_prefix(Some("LIMITER".to_owned()));
        log.with(journal.with_syslog_identifier("limiter".to_owned())).init();
        return Ok(());
    }
    // Colours are for terminals: a file would keep them as noise.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // What has fields says the same in its words.
    let words = format::debug_fn(
        |out, field, value| {
            if field.name() == "message" { write!(out, "{value:?}") } else { Ok(()) }
        },
    );
    let text = fmt::layer().with_target(false).with_ansi(colours).with_writer(std::io::stderr);
    log.with(text.fmt_fields(words)).init();
    Ok(())
}

/// Whether stderr is the journal: systemd names its device and inode in `JOURNAL_STREAM` (systemd.exec(5)).
fn is_journal() -> bool {
    let Ok(stderr) = rustix::fs::fstat(std::io::stderr().as_fd()) else { return false };
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    stream == format!("{}:{}", stderr.st_dev, stderr.st_ino)
}
