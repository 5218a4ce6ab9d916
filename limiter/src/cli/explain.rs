// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter explain ADDR`

mod answer;
mod commands;
mod elsewhere;
mod for_user;
mod pasted;
mod resolve;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::{collections::BTreeMap, net::IpAddr, process::ExitCode, time::Duration};

use anyhow::Result;
use limiter_common::Addr;
use serde::Serialize;

use self::{elsewhere::Elsewhere, pasted::Meant};
pub use self::{screen::screen, view::Explanation};
use super::{
    exit::WrongUsage,
    input,
    loaded::{daemon, enter_protected, loaded, steadily},
    output::{self, Format},
};
use crate::{
    config,
    evidence::{
        self,
        case::{Case, Known, Watched},
    },
    instance::Instance,
    kernel::Tables,
    policy::{self, Selection},
    printable,
    standing::{self, AtService, Standing},
    user_text::{self, Language, Texts},
};

#[derive(clap::Args)]
pub struct Args {
    /// IPv4 or IPv6 address or name of a client, a line of a log about it, or the text of a refusal
    #[arg(value_name = "ADDR", required = true)]
    words: Vec<String>,

    /// Only these services, separated by commas [default: every service]
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// Watch for this time first, such as 60s, how connections come and go
    #[arg(long, value_name = "TIME", value_parser = input::duration)]
    watch: Option<Duration>,

    /// Print a text for the mail user instead
    #[arg(long, conflicts_with = "json")]
    for_user: bool,

    /// Language of that text
    #[arg(long, value_enum, requires = "for_user", default_value_t)]
    language: Language,

    #[command(flatten)]
    pub format: Format,
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Document {
    /// An address, and where it stands here.
    Here(Box<Explanation>),
    /// A refusal by another server.
    Elsewhere(Elsewhere),
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let words = args.words.join(" ");
    // An error in the texts is told before anything is asked.
    let texts = if args.for_user { Some(Texts::load(args.language, &user_text::dir())?) } else { None };
    let explanation = match document(instance, args, &words)? {
        Document::Here(explanation) => explanation,
        Document::Elsewhere(elsewhere) if args.format.json => {
            output::json(&elsewhere)?;
            return Ok(ExitCode::SUCCESS);
        }
        Document::Elsewhere(elsewhere) => {
            elsewhere::screen(&elsewhere, output::width()).show()?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    match (texts, for_user::concern(&explanation)) {
        (Some(texts), Some(at)) => {
            output::text(&for_user::text(&texts, &explanation, at, &hostname(instance)?))?;
        }
        _ if args.format.json => output::json(&explanation)?,
        _ => {
            for (number, one) in std::iter::once(&*explanation).chain(&explanation.also).enumerate() {
                if number > 0 {
                    output::line("")?;
                }
                screen(instance, one, output::width()).show()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of what these words mean.
fn document(instance: &Instance, args: &Args, words: &str) -> Result<Document> {
    let no_address = |what: &str| {
        WrongUsage(format!(
            "{what}: give an IPv4 or IPv6 address, such as 203.0.113.7 or 2001:db8::5, a name, or a line of a log that has one"
        ))
    };
    let (addresses, asked) = match pasted::read(words) {
        Some(Meant::Address(address)) => (vec![address], None),
        Some(Meant::Name(name)) => (resolve::addresses(&name)?, Some(name)),
        Some(Meant::Line(line)) => {
            let own = hostname(instance)?;
            let local = local_addresses(instance)?;
            let is_own = |name: &str| name.eq_ignore_ascii_case(&own) || name == "localhost";
            if let Some(elsewhere) = Elsewhere::of(&line, is_own, |address| local.contains(&address)) {
                return Ok(Document::Elsewhere(elsewhere));
            }
            let Some(client) = line.client else {
                return Err(no_address("this text names no client").into());
            };
            (vec![client], Some(words.to_owned()))
        }
        None if words.contains('/') => {
            return Err(WrongUsage(format!("invalid value '{words}' for '<ADDR>': this is a network; give one address, such as 203.0.113.7 or 2001:db8::5")).into());
        }
        None => return Err(no_address(&format!("invalid value '{words}' for '<ADDR>'")).into()),
    };
    let mut explanations = addresses.into_iter().map(|address| explain(instance, args, address));
    let Some(first) = explanations.next() else {
        return Err(no_address("this name has no address").into());
    };
    let also = explanations.collect::<Result<Vec<_>>>()?;
    Ok(Document::Here(Box::new(Explanation { asked, also, ..first? })))
}

/// What is known of an address.
fn explain(instance: &Instance, args: &Args, address: IpAddr) -> Result<Explanation> {
    let watched =
        args.watch.map_or_else(|| Ok(BTreeMap::new()), |time| watch(instance, args, address, time))?;
    steadily(instance, || {
        let tables = loaded(instance)?;
        let standing = standing(instance, args, &tables, address)?;
        // Without a look at the sockets the rest is as true as before.
        let cases =
            enter_protected(instance, &tables).and_then(|()| cases(instance, &tables, &standing, &watched));
        let explanation = Explanation::of(&standing);
        Ok(match cases {
            Ok(cases) => explanation.diagnosed(&cases),
            Err(problem) => explanation.undiagnosed(&problem),
        })
    })
}

/// Where an address stands at the services that are asked about.
fn standing(instance: &Instance, args: &Args, tables: &Tables, address: IpAddr) -> Result<Standing> {
    let selected = policy::select(&tables.policy.services()?, args.service.as_deref())?;
    let answers = daemon(instance, tables)?.answers;
    let mut standing = standing::address(tables, Addr::from(address), answers)?;
    standing.services.retain(|at| selected.includes(at.facts.count_keys.service()));
    Ok(standing)
}

/// What the source of an address does meanwhile, by the names of the services.
fn watch(
    instance: &Instance,
    args: &Args,
    address: IpAddr,
    time: Duration,
) -> Result<BTreeMap<String, Watched>> {
    let tables = loaded(instance)?;
    enter_protected(instance, &tables)?;
    let standing = standing(instance, args, &tables, address)?;
    evidence::watch(&tables, &standing, &all(&standing), time)
}

fn all(standing: &Standing) -> Selection {
    selection(standing.services.iter())
}

fn selection<'a>(services: impl Iterator<Item = &'a AtService>) -> Selection {
    let services = services.map(|at| (at.facts.count_keys.service(), at.facts.policy)).collect();
    Selection { services, is_all: false }
}

/// So many connections are worth a question, whatever the limit is.
const MANY: u32 = 8;

/// The services that somebody may ask about: where it is refused or was, waits, was watched, or holds a good part of its
/// limit.
fn cases(
    instance: &Instance,
    tables: &Tables,
    standing: &Standing,
    watched: &BTreeMap<String, Watched>,
) -> Result<Vec<Case>> {
    let is_in_question = |at: &&AtService| {
        let held = at.facts.usage.source.connections();
        let is_much = held >= at.limits.source.div_ceil(2).clamp(1, MANY);
        let was_seen = watched.get(at.name()).is_some_and(|watched| !watched.begun.is_empty());
        at.reason.is_some() || at.refused() > 0 || at.facts.waiting.count > 0 || is_much || was_seen
    };
    let asked = selection(standing.services.iter().filter(is_in_question));
    if asked.services.is_empty() {
        return Ok(Vec::new());
    }
    let mut cases = evidence::gather(tables, standing, &asked)?;
    for case in &mut cases {
        case.watched = watched.get(&case.service).cloned();
        case.history = evidence::past(instance, case);
        // A user is called what its mail daemon lets it be called.
        if let Known::Is(users) = &mut case.users {
            let named = std::mem::take(users).into_iter();
            *users = named.map(|(name, sessions)| (printable::name(name.as_bytes()), sessions)).collect();
        }
    }
    Ok(cases)
}

/// The name that this host gives to its clients.
fn hostname(instance: &Instance) -> Result<String> {
    let configured = config::load(&instance.applied_path()).ok().and_then(|config| config.hostname);
    Ok(match configured {
        Some(name) => name,
        None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
    })
}

/// The addresses of this host, as the limits in force know them.
fn local_addresses(instance: &Instance) -> Result<Vec<IpAddr>> {
    let rules = steadily(instance, || loaded(instance)?.policy.rules())?;
    Ok(rules.iter().filter(|rule| rule.is_local).map(|rule| rule.network.addr.to_ip()).collect())
}
