// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter import`

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use anyhow::{Result, bail};

use super::{
    exit::{FAILED, WrongUsage},
    output,
};
use crate::import::{self, Import, Reader, gather};

#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Read the settings of Postfix, from this host or from the output of `postconf -x; postconf -M; postconf -P` in FILE
    /// (`-`: standard input)
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    postfix: Option<Input>,

    /// Read the settings of Exim, from this host or from the output of `exim -bV; exim -bP` in FILE, with `exim -bP +NAME`
    /// for each host list in it
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    exim: Option<Input>,

    /// Read the settings of Dovecot, from this host or from the output of `doveconf` or `doveconf -n` in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    dovecot: Option<Input>,
}

const EXAMPLES: &str = "\
Examples:
  limiter import > limiter.toml
  ssh mx2 'postconf -x; postconf -M; postconf -P' | limiter import --postfix=- --dovecot";

/// Where the settings of a daemon are.
#[derive(Clone)]
enum Input {
    /// On this host.
    Here,
    /// In a file that its program's output was saved in.
    File(PathBuf),
}

impl FromStr for Input {
    type Err = Infallible;

    fn from_str(file: &str) -> Result<Self, Infallible> {
        Ok(if file.is_empty() { Self::Here } else { Self::File(file.into()) })
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let asked: [(&Reader, &Option<Input>); 3] =
        [(&import::POSTFIX, &args.postfix), (&import::EXIM, &args.exim), (&import::DOVECOT, &args.dovecot)];
    let is_stdin = |input: &Option<Input>| matches!(input, Some(Input::File(file)) if file == Path::new("-"));
    if asked.iter().filter(|(_, input)| is_stdin(input)).count() > 1 {
        bail!(WrongUsage(
            "standard input can hold the settings of one daemon only; give the others as files".to_owned()
        ));
    }
    let all = asked.iter().all(|(_, input)| input.is_none());
    let (mut daemons, mut missing, mut failed) = (Vec::new(), Vec::new(), false);
    for (reader, input) in asked.into_iter().filter(|(_, input)| all || input.is_some()) {
        let result = match input {
            Some(Input::File(path)) => gather::saved(reader, path).map(Some),
            _ => gather::here(reader),
        };
        let sentence = match result {
            Ok(Some(daemon)) => {
                daemons.push(daemon);
                continue;
            }
            Ok(None) => {
                format!("{} is not installed: {} not found.", reader.name, reader.programs.join(" and "))
            }
            Err(error) => format!("cannot import {}: {error:#}.", reader.name),
        };
        // Said again in the file, which may be read elsewhere.
        eprintln!("limiter: {sentence}");
        failed |= !all;
        missing.push(sentence);
    }
    if daemons.is_empty() {
        bail!(
            "found no limits of a mail daemon; give the saved output of its program, see `limiter help import`"
        );
    }
    output::line(Import::new(daemons, missing).to_string().trim_end())?;
    Ok(if failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
