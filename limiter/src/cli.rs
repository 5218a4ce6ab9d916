// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The command line: nouns read, verbs change. A file a verb.

mod advise;
mod answer;
mod bans;
mod caution;
mod check;
mod close;
mod configured;
mod connections;
mod doctor;
mod exit;
mod explain;
mod generate;
mod history;
mod import;
mod input;
mod keepalive;
mod list;
mod log;
mod output;
mod reload;
mod rules;
mod run;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod screens;
mod set;
mod status;
mod unload;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use serde::Serialize;

use crate::{
    bans::by_hand::NotBannable,
    changes,
    config::{ConfigError, SettingError},
    evidence::tool,
    greeter::process::{self, Part},
    instance::Instance,
    kernel::environment,
    loaded,
    policy::{StaleFile, UnknownService},
};

use self::exit::{FAILED, WRONG_USAGE, WrongUsage};

/// Limit connections to mail services, exactly, in the kernel
///
/// Counts the connections that each source holds to each mail service, refuses connections over the
/// limit before the mail daemon sees them, and tells the client the reason in its own protocol.
#[derive(Parser)]
#[command(name = "limiter", version, max_term_width = 100)]
struct Cli {
    /// Name of the instance, if several run on this host
    #[arg(long, global = true, default_value = Instance::DEFAULT, value_name = "NAME")]
    instance: Instance,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the daemon: load the limits, or take them over, and answer refused clients
    Run(run::Args),
    /// Show services, limits, connection counts and warnings
    Status(status::Args),
    /// List sources with their connections and limits, and recently refused sources
    List(list::Args),
    /// List connections: how long they have been there, idle time, bytes, process
    Connections(connections::Args),
    /// Explain which limit applies to an address, and what lets it in
    Explain(explain::Args),
    /// Show who was refused or near the limit: when, how often and why
    #[command(args_conflicts_with_subcommands = true)]
    History(history::Args),
    /// Suggest limits, by the history: what each would have refused, and whom
    Advise(advise::Args),
    /// Check this host: kernel, hooks, listeners, mail daemons, tables, files; with commands that mend what is wrong
    ///
    /// Changes nothing, and also works when nothing is loaded. Exits with 0 if nothing is wrong, 1 after a warning, and
    /// 2 if something is bad.
    Doctor(doctor::Args),
    /// List network rules: allow, deny, or limits for a network
    Rules(rules::RulesArgs),
    /// List bans with their reason and the time left
    Bans(bans::BansArgs),
    /// Check a configuration file: whether it is right, what it means, and what a reload would change
    ///
    /// Changes nothing, and needs neither root nor a loaded instance; without root it cannot tell what a reload would
    /// change. Exits with 0 if the file is right, and 2 if it has a mistake.
    Check(check::Args),
    /// Reload the configuration file, and apply it in one step
    Reload(reload::Args),
    /// Change the limits of a service, at once
    Set(set::Args),
    /// Allow networks unlimited connections, at once
    Allow(rules::Whom),
    /// Deny networks all connections, at once
    Deny(rules::DenyArgs),
    /// Limit each source of a network, at once
    Limit(rules::LimitArgs),
    /// Remove the rules for exactly these networks, at once
    Forget(rules::Whom),
    /// Ban addresses from mail ports for a time, at once; existing connections continue
    Ban(bans::BanArgs),
    /// End bans, and reset the penalties of their sources
    Unban(bans::Whom),
    /// Close connections of an address or a network: all, or only idle or silent ones
    Close(close::Args),
    /// Stop the daemon, and remove all limits, programs and maps from the kernel
    Unload(unload::Args),
    /// Print a configuration with the limits of Postfix, Exim and Dovecot
    ///
    /// Names the origin of each value, and lists the settings that cannot be imported. Changes nothing,
    /// and needs neither root nor a loaded instance. Without options, reads all installed daemons of
    /// the three.
    Import(import::Args),
    /// Write man pages or shell completions into a directory, for packages
    #[command(hide = true)]
    Generate(generate::Args),
    /// The process that answers refused clients: `limiter run` starts it
    #[command(hide = true)]
    Greeter(Part),
    /// The process that asks a mail daemon's own program: other commands start it
    #[command(hide = true)]
    Tool(tool::Part),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // What was asked for, or an invocation without a verb: the help itself is the answer.
        Err(answer) if !is_mistake(answer.kind()) => answer.exit(),
        Err(mistake) => return fail(&one_sentence(&mistake), WRONG_USAGE, Asked::of_this_process()),
    };
    let is_change = cli.verb.is_change();
    if matches!(cli.verb, Verb::Unload(_)) && environment::check().is_ok() {
        // Afterwards there is nobody to tell.
        leave_word(&cli.instance);
    }
    let result = match cli.verb {
        Verb::Run(args) => run::run(&cli.instance, args),
        Verb::Greeter(part) => process::serve(part),
        Verb::Tool(part) => tool::serve(&part),
        Verb::Status(args) => status::run(&cli.instance, &args),
        Verb::List(args) => list::run(&cli.instance, &args),
        Verb::Connections(args) => connections::run(&cli.instance, &args),
        Verb::Close(args) => close::run(&cli.instance, &args),
        Verb::Explain(args) => explain::run(&cli.instance, &args),
        Verb::History(args) => history::run(&cli.instance, &args),
        Verb::Advise(args) => advise::run(&cli.instance, &args),
        Verb::Doctor(args) => doctor::run(&cli.instance, &args),
        Verb::Rules(args) => rules::show(&cli.instance, &args),
        Verb::Check(args) => check::run(&cli.instance, &args),
        Verb::Reload(args) => reload::run(&cli.instance, &args),
        Verb::Set(args) => set::run(&cli.instance, &args),
        Verb::Allow(args) => rules::allow(&cli.instance, &args),
        Verb::Deny(args) => rules::deny(&cli.instance, &args),
        Verb::Limit(args) => rules::limit(&cli.instance, args),
        Verb::Forget(args) => rules::forget(&cli.instance, &args),
        Verb::Bans(args) => bans::show(&cli.instance, &args),
        Verb::Ban(args) => bans::ban(&cli.instance, &args),
        Verb::Unban(args) => bans::unban(&cli.instance, &args),
        Verb::Unload(args) => unload::run(&cli.instance, &args),
        Verb::Import(args) => import::run(&args),
        Verb::Generate(args) => generate::run(&args, Cli::command()),
    };
    // Also where the reader of what it prints has gone.
    if is_change && result.as_ref().map_or_else(output::is_broken_pipe, |code| *code == ExitCode::SUCCESS) {
        leave_word(&cli.instance);
    }
    match result {
        Ok(code) => code,
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let is_usage = error.is::<ConfigError>()
                || error.is::<SettingError>()
                || error.is::<UnknownService>()
                || error.is::<StaleFile>()
                || error.is::<NotBannable>()
                || error.is::<WrongUsage>();
            let code = if is_usage { WRONG_USAGE } else { FAILED };
            fail(&format!("{error:#}"), code, Asked::of_this_process())
        }
    }
}

/// In which form the answer was asked for, whether or not the rest of the command line made sense.
#[derive(Clone, Copy)]
struct Asked {
    json: bool,
    brief: bool,
}

impl Asked {
    fn of_this_process() -> Self {
        let words: Vec<_> = std::env::args_os().skip(1).take_while(|word| word != "--").collect();
        let has = |flag: &str| words.iter().any(|word| word == flag);
        Self { json: has("--json"), brief: has("status") && has("--brief") }
    }
}

/// An error as a document.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
    exit_code: u8,
}

/// Says why nothing was done: in a sentence, and in the form that was asked for.
fn fail(sentence: &str, code: u8, asked: Asked) -> ExitCode {
    // Where this cannot be written either, the code is what is left to tell.
    if asked.brief {
        let _unwritten = output::line(&status::unknown(sentence));
        return ExitCode::from(status::UNKNOWN);
    }
    if asked.json {
        let _unwritten = output::json(&Failure { error: sentence, exit_code: code });
    }
    eprintln!("limiter: {sentence}");
    ExitCode::from(code)
}

impl Verb {
    /// Whether it changes what is in force, and the daemon does not know of it by itself.
    const fn is_change(&self) -> bool {
        match self {
            Self::Advise(args) => args.is_change(),
            Self::Reload(_)
            | Self::Set(_)
            | Self::Allow(_)
            | Self::Deny(_)
            | Self::Limit(_)
            | Self::Forget(_)
            | Self::Ban(_)
            | Self::Unban(_)
            | Self::Close(_) => true,
            Self::Run(_)
            | Self::Status(_)
            | Self::List(_)
            | Self::Connections(_)
            | Self::Explain(_)
            | Self::History(_)
            | Self::Doctor(_)
            | Self::Rules(_)
            | Self::Bans(_)
            | Self::Check(_)
            | Self::Unload(_)
            | Self::Import(_)
            | Self::Generate(_)
            | Self::Greeter(_)
            | Self::Tool(_) => false,
        }
    }
}

/// Leaves word for the daemon's log of what this command has done. It is done, whether that can be said or not.
fn leave_word(instance: &Instance) {
    if instance.pins().exists()
        && let Err(problem) = changes::leave(instance, &output::remembered())
    {
        eprintln!("limiter: warning: the daemon cannot log this change: {problem:#}");
    }
}

const fn is_mistake(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    )
}

/// Clap's paragraphs as one sentence: what is wrong, then where to read on.
fn one_sentence(mistake: &clap::Error) -> String {
    let text = mistake.render().to_string();
    let wrong = text.split("\n\nUsage:").next().unwrap_or(&text);
    let wrong = wrong.split("\n\nFor more information").next().unwrap_or(wrong);
    let wrong = wrong.replace("\n\n  tip: ", ", ");
    let words = wrong.strip_prefix("error: ").unwrap_or(&wrong).split_whitespace().collect::<Vec<_>>();
    format!("{}; see `limiter help`", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_one_sentence() {
        let said = |words: &[&str]| {
            let mistake = Cli::try_parse_from(words).err().unwrap();
            assert!(is_mistake(mistake.kind()));
            one_sentence(&mistake)
        };
        assert_eq!(
            said(&["limiter", "list", "--over", "x"]),
            "invalid value 'x' for '--over <N>': give a whole number of connections, such as 10; see `limiter help`"
        );
        assert_eq!(
            said(&["limiter", "set", "smtp"]),
            "the following required arguments were not provided: <KEY=VALUE>...; see `limiter help`"
        );
        assert_eq!(
            said(&["limiter", "stauts"]),
            "unrecognized subcommand 'stauts', a similar subcommand exists: 'status'; see `limiter help`"
        );
    }
}
