// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! `limiter doctor`

#[cfg(test)]
pub mod example;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use serde::Serialize;

use super::{
    output::{self, Format, Screen},
    rules,
};
use crate::{
    doctor::{self, Finding, Grade, Outcome, Report, bundle, bundle::Document},
    instance::Instance,
    loaded::{loaded, steadily},
    status,
};

#[derive(clap::Args)]
pub struct Args {
    /// Show what is good as well
    #[arg(long)]
    all: bool,

    /// Write an archive for a bug report to a new file: addresses and names of hosts and users are replaced in it
    #[arg(long, value_name = "FILE.tar.gz", conflicts_with = "all")]
    bundle: Option<PathBuf>,

    #[command(flatten)]
    pub format: Format,
}

/// With this code a command ends that has found nothing worse.
const fn code(worst: Grade) -> u8 {
    match worst {
        Grade::Good | Grade::Note | Grade::Unknown => 0,
        Grade::Warning => 1,
        Grade::Bad => 2,
    }
}

pub fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let report = doctor::examine(instance);
    if let Some(path) = &args.bundle {
        return bundle(instance, path, &report, &args.format);
    }
    if args.format.json {
        output::json(&report)?;
    } else {
        screen(&report, args.all, output::width()).show()?;
    }
    Ok(ExitCode::from(code(report.worst)))
}

/// What was written where.
#[derive(Serialize)]
struct Written<'a> {
    bundle: &'a Path,
    files: Vec<&'static str>,
}

fn bundle(instance: &Instance, path: &Path, report: &Report, format: &Format) -> Result<ExitCode> {
    let mut documents = vec![Document { name: "doctor.json", text: serde_json::to_string_pretty(report)? }];
    // Where nothing is loaded, the report says so.
    let status = steadily(instance, || status::look(instance, false));
    let policy = steadily(instance, || loaded(instance)?.policy.policy());
    if let (Ok(Some(status)), Ok(policy)) = (status, policy) {
        let rules = serde_json::to_string_pretty(&rules::rules(&policy))?;
        documents.push(Document { name: "status.json", text: serde_json::to_string_pretty(&status)? });
        documents.push(Document { name: "rules.json", text: rules });
    }
    let files = bundle::write(path, instance, documents)?;
    if format.json {
        output::json(&Written { bundle: path, files })?;
    } else {
        output::line(&format!(
            "{}: {}; addresses and names of hosts and users are replaced: look at it before you send it",
            path.display(),
            files.join(", ")
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(Finding { check, outcome }: &Finding) -> String {
    format!("{}, {check}: {}", outcome.grade.name(), outcome.sentence)
}

/// What is shown of it: the worst first, and what is good in one line, unless `all` is asked for.
pub fn screen(report: &Report, all: bool, width: output::Width) -> Screen {
    let mut screen = Screen::new(width);
    let counts = Grade::ALL.iter().map(|&grade| (grade, report.count(grade))).filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(grade, count)| format!("{count} {}", grade.name())).collect();
    screen.line(&format!("instance {}: {}", report.instance, counts.join(", ")));
    for grade in Grade::ALL.into_iter().filter(|&grade| grade != Grade::Good) {
        for finding in report.findings.iter().filter(|finding| finding.outcome.grade == grade) {
            let Outcome { sentence, command, .. } = &finding.outcome;
            let mut lines = vec![line(finding)];
            // One that stands in the sentence can be taken from there.
            let command = command.as_ref().map(|command| format!("`{command}`"));
            lines.extend(command.filter(|command| !sentence.contains(command.as_str())));
            screen.paragraph(lines);
        }
    }
    if all {
        let good = report.findings.iter().filter(|finding| finding.outcome.grade == Grade::Good);
        screen.paragraph(good.map(line));
    }
    if !all {
        let is_good = |check: &&str| {
            let mut of_check = report.findings.iter().filter(|finding| finding.check == *check).peekable();
            of_check.peek().is_some() && of_check.all(|finding| finding.outcome.grade == Grade::Good)
        };
        let mut names: Vec<&str> = report.findings.iter().map(|finding| finding.check).collect();
        names.dedup();
        let names: Vec<&str> = names.into_iter().filter(is_good).collect();
        screen
            .paragraph((!names.is_empty()).then(|| format!("good: {}; --all shows them", names.join(", "))));
    }
    screen.paragraph(
        (!report.skipped.is_empty())
            .then(|| format!("not looked at, because nothing is loaded: {}", report.skipped.join(", "))),
    );
    screen
}
