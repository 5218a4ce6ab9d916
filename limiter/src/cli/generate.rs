// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter generate`: man pages and shell completions, for packages. They are made of the definition that the command
//! line itself is parsed by, so they name what there is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::{Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    exit::{FAILED, NOT_IN_FORCE, WRONG_USAGE},
    output,
};

/// System administration (man-pages(7)).
const SECTION: &str = "8";

/// What is generated.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// `limiter.8`, and a page for each command
    Man,
    /// For bash, zsh and fish
    Completions,
}

#[derive(clap::Args)]
pub struct Args {
    /// What to write
    what: What,

    /// An existing directory for the files
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
}

/// Writes them; `command` is the whole command line.
pub fn run(args: &Args, command: Command) -> Result<ExitCode> {
    let written = match args.what {
        What::Man => man_pages(command, &args.directory)?,
        What::Completions => completions(command, &args.directory)?,
    };
    let written: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    output::done(&written);
    Ok(ExitCode::SUCCESS)
}

fn completions(mut command: Command, directory: &Path) -> Result<Vec<PathBuf>> {
    let name = command.get_name().to_owned();
    [Shell::Bash, Shell::Zsh, Shell::Fish]
        .into_iter()
        .map(|shell| {
            clap_complete::generate_to(shell, &mut command, &name, directory)
                .with_context(|| format!("cannot write the {shell} completions to {}", directory.display()))
        })
        .collect()
}

fn man_pages(command: Command, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut command = command.disable_help_subcommand(true);
    // Gives each command its name as a page: limiter-status.
    command.build();
    let verbs: Vec<Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    let names: Vec<String> = verbs.iter().map(page_name).collect();
    let mut pages = vec![(page_name(&command), main_page(command, &names))];
    pages.extend(names.into_iter().zip(verbs.into_iter().map(verb_page)));
    pages
        .into_iter()
        .map(|(name, page)| {
            let path = directory.join(format!("{name}.{SECTION}"));
            let text = page.context("cannot compose the man page").and_then(|text| {
                fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
            });
            text.map(|()| path)
        })
        .collect()
}

fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn page(command: Command) -> Man {
    let name = page_name(&command);
    Man::new(command)
        .title(name.to_uppercase())
        .section(SECTION)
        .source(concat!("limiter ", env!("CARGO_PKG_VERSION")))
}

fn main_page(command: Command, verbs: &[String]) -> Result<Vec<u8>> {
    let page = page(command);
    let mut text = Vec::new();
    page.render(&mut text)?;
    let mut more = Roff::new();
    more.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        (0, "Done, or shown."),
        (FAILED, "Something failed; nothing has changed, unless the message says so."),
        (WRONG_USAGE, "The command line or the configuration file has a mistake; nothing has changed."),
        (NOT_IN_FORCE, "limiter status: no limits are in force."),
    ] {
        more.control("TP", []).text([bold(code.to_string())]).text([roman(meaning)]);
    }
    more.control("SH", ["FILES"]);
    for (file, meaning) in [
        ("/etc/limiter/limiter.toml", "The configuration; no file is needed."),
        ("/sys/fs/bpf/limiter", "The programs and maps of the instance limiter."),
        ("/run/limiter", "Locks, and what the daemon tells the commands."),
        ("/var/lib/limiter", "What outlives a restart of the host, such as bans."),
    ] {
        more.control("TP", []).text([bold(file)]).text([roman(meaning)]);
    }
    more.control("SH", ["SEE ALSO"]);
    let verbs: Vec<String> = verbs.iter().map(|name| format!("{name}({SECTION})")).collect();
    more.text([roman(verbs.join(", "))]);
    more.to_writer(&mut text)?;
    Ok(text)
}

fn verb_page(verb: Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    page(verb).render(&mut text)?;
    let mut more = Roff::new();
    more.control("SH", ["SEE ALSO"]).text([bold("limiter"), roman(format!("({SECTION})"))]);
    more.to_writer(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    fn command() -> Command {
        let verb = |name: &'static str| Command::new(name).about("Does a thing");
        Command::new("limiter")
            .about("Limits connections")
            .arg(
                Arg::new("dry-run")
                    .long("dry-run")
                    .action(ArgAction::SetTrue)
                    .global(true)
                    .help("Only print"),
            )
            .subcommand(verb("status"))
            .subcommand(verb("close"))
            .subcommand(verb("greeter").hide(true))
    }

    #[test]
    fn each_command_that_help_shows_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let written = man_pages(command(), dir.path()).unwrap();
        let names: Vec<&str> =
            written.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["limiter.8", "limiter-status.8", "limiter-close.8"]);
        let main = fs::read_to_string(&written[0]).unwrap();
        assert!(main.contains("limiter\\-status(8)") && main.contains("EXIT STATUS"), "{main}");
        assert!(!main.contains("greeter") && !main.contains("help(8)"), "{main}");
        let close = fs::read_to_string(&written[2]).unwrap();
        assert!(close.contains("Does a thing") && close.contains("Only print"), "{close}");
    }

    #[test]
    fn completions_are_for_three_shells() {
        let dir = tempfile::tempdir().unwrap();
        let written = completions(command(), dir.path()).unwrap();
        assert_eq!(written.len(), 3);
        for path in written {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("status") && text.contains("dry-run"), "{}", path.display());
        }
    }

    #[test]
    fn where_nothing_can_be_written_the_sentence_says_so() {
        let problem = man_pages(command(), Path::new("/nowhere/at/all")).unwrap_err();
        assert!(
            format!("{problem:#}").starts_with("cannot write /nowhere/at/all/limiter.8: "),
            "{problem:#}"
        );
    }
}
