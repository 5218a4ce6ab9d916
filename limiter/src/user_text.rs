// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The text for a mail user, in plain words, from a file: the one that comes with the limiter, or the administrator's in
//! its place. Which parts of it are said follows from what was found.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{diagnose::Paragraph, trust};

/// Where an administrator puts other texts.
pub const DIR: &str = "/etc/limiter/texts";
/// A larger file is none of texts.
const MOST_BYTES: u64 = 256 * 1024;

/// The languages there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// English
    #[default]
    En,
    /// German
    De,
}

impl Language {
    #[cfg(test)]
    const ALL: [Self; 2] = [Self::En, Self::De];

    /// As it is called in the names of files.
    const fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
        }
    }

    const fn built_in(self) -> &'static str {
        match self {
            Self::En => include_str!("../texts/en.txt"),
            Self::De => include_str!("../texts/de.txt"),
        }
    }
}

/// What a text is about.
#[derive(Clone, Debug)]
pub struct About {
    /// The address.
    pub address: String,
    /// Its connections.
    pub connections: u32,
    /// Its limit.
    pub limit: Option<u32>,
    /// This host.
    pub hostname: String,
    /// What the service is for: the name of a part.
    pub what: &'static str,
}

/// The names of the parts that say what a service is for.
pub const WHATS: [&str; 5] = ["imap", "pop3", "smtp", "submission", "sieve"];
const GREETING: &str = "greeting";
const PLACEHOLDERS: [&str; 5] = ["address", "connections", "limit", "what", "hostname"];

/// Each part that follows from a finding, by its name.
const PARAGRAPHS: [(&str, Paragraph); 11] = [
    ("not-you", Paragraph::NotYou),
    ("too-many", Paragraph::TooMany),
    ("shared", Paragraph::Shared),
    ("close-others", Paragraph::CloseOthers),
    ("cached-connections", Paragraph::CachedConnections),
    ("check-less-often", Paragraph::CheckLessOften),
    ("loop", Paragraph::Loop),
    ("ghosts", Paragraph::Ghosts),
    ("router", Paragraph::Router),
    ("submission-ports", Paragraph::Submission),
    ("tell-provider", Paragraph::TellProvider),
];

/// The parts of a file, by their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts(BTreeMap<String, String>);

impl Texts {
    /// Those of a language: the administrator's in `dir`, and what those leave out.
    ///
    /// # Errors
    /// Where the administrator's file cannot be read, is not to be trusted, or has a part or placeholder that nobody knows.
    pub fn load(language: Language, dir: &Path) -> Result<Self> {
        let mut texts = Self::parse(language.built_in()).context("the built-in texts")?;
        let path = dir.join(format!("{}.txt", language.name()));
        if let Some(text) = trusted(&path)? {
            let own = Self::parse(&text).with_context(|| path.display().to_string())?;
            texts.0.extend(own.0);
        }
        Ok(texts)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut parts: BTreeMap<String, String> = BTreeMap::new();
        let mut part: Option<String> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                ensure!(
                    is_known(name),
                    "line {number}: there is no part [{name}]; the parts are {}",
                    names().collect::<Vec<_>>().join(", ")
                );
                ensure!(
                    parts.insert(name.to_owned(), String::new()).is_none(),
                    "line {number}: the part [{name}] is there twice"
                );
                part = Some(name.to_owned());
                continue;
            }
            for placeholder in placeholders(line) {
                ensure!(
                    PLACEHOLDERS.contains(&placeholder),
                    "line {number}: there is no placeholder {{{placeholder}}}; there are {{{}}}",
                    PLACEHOLDERS.join("}, {")
                );
            }
            match part.as_ref().and_then(|part| parts.get_mut(part)) {
                Some(part) => {
                    part.push_str(line);
                    part.push('\n');
                }
                None if line.is_empty() => {}
                None => bail!("line {number}: this text is in no part; begin with a line such as [greeting]"),
            }
        }
        Ok(Self(parts))
    }

    fn part(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |text| text.trim())
    }

    /// The paragraphs of the text, with the figures in their places: each a line, items begin with "- ".
    pub fn paragraphs(&self, about: &About, parts: &[Paragraph]) -> Vec<String> {
        let mut paragraphs = Vec::new();
        let names = parts.iter().filter_map(|wanted| {
            PARAGRAPHS.iter().find(|(_, paragraph)| paragraph == wanted).map(|(name, _)| *name)
        });
        for name in std::iter::once(GREETING).chain(names) {
            let mut lines = String::new();
            for line in self.part(name).lines().chain(std::iter::once("")) {
                // An item, and an empty line, end what is before.
                if (line.is_empty() || line.starts_with("- ")) && !lines.is_empty() {
                    paragraphs.push(self.filled(&lines, about));
                    lines.clear();
                }
                if !lines.is_empty() {
                    lines.push(' ');
                }
                lines.push_str(line);
            }
        }
        paragraphs
    }

    fn filled(&self, text: &str, about: &About) -> String {
        let limit = about.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        let what = self.part(about.what).lines().collect::<Vec<_>>().join(" ");
        let values = [&about.address, &about.connections.to_string(), &limit, &what, &about.hostname];
        // One pass: what is put in is not looked through again.
        let (mut out, mut rest) = (String::with_capacity(text.len()), text);
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let (name, behind) = after.split_once('}').unwrap_or((after, ""));
            match PLACEHOLDERS.iter().zip(values).find(|(known, _)| **known == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push('{');
                    out.push_str(name);
                }
            }
            rest = behind;
        }
        out.push_str(rest);
        out
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    WHATS.into_iter().chain([GREETING]).chain(PARAGRAPHS.into_iter().map(|(name, _)| name))
}

fn is_known(name: &str) -> bool {
    names().any(|known| known == name)
}

/// The names in braces in a line.
fn placeholders(line: &str) -> impl Iterator<Item = &str> {
    line.split('{').skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

/// What the file says, if there is one; only root may have a say in it.
fn trusted(path: &Path) -> Result<Option<String>> {
    let what = || format!("cannot read {}", path.display());
    let (about, distrust) = match trust::look(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        found => found.with_context(what)?,
    };
    if let Some(distrust) = distrust {
        bail!("{}: {distrust}", path.display());
    }
    ensure!(about.is_file(), "{} is no file: remove it, or put a file of texts there", path.display());
    ensure!(
        about.len() <= MOST_BYTES,
        "{} is larger than {MOST_BYTES} bytes: make it shorter",
        path.display()
    );
    std::fs::read_to_string(path).with_context(what).map(Some)
}

/// Where the administrator's texts are.
pub fn dir() -> PathBuf {
    DIR.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            address: "203.0.113.7".to_owned(),
            connections: 10,
            limit: Some(10),
            hostname: "mail.example.org".to_owned(),
            what: "imap",
        }
    }

    #[test]
    fn each_language_has_each_part_with_the_same_placeholders_and_paragraphs() {
        let all = Language::ALL.map(|language| Texts::parse(language.built_in()).unwrap());
        let shape = |texts: &Texts, name: &str| {
            let text = texts.part(name).to_owned();
            let mut used: Vec<String> = placeholders(&text).map(str::to_owned).collect();
            used.sort_unstable();
            let paragraphs = text.split("\n\n").count();
            let items = text.lines().filter(|line| line.starts_with("- ")).count();
            (used, paragraphs, items)
        };
        for name in names() {
            for texts in &all {
                assert!(!texts.part(name).is_empty(), "{name}");
                assert_eq!(shape(texts, name), shape(&all[0], name), "{name}");
            }
        }
    }

    #[test]
    fn a_text_has_its_figures_in_their_places_and_an_item_a_line() {
        let texts = Texts::load(Language::En, Path::new("/nonexistent")).unwrap();
        let said = texts.paragraphs(&about(), &[Paragraph::TooMany, Paragraph::TellProvider]);
        assert_eq!(said[0], "Hello,");
        assert_eq!(
            said[1],
            "our mail server mail.example.org refused a connection from your address 203.0.113.7 for reading mail (IMAP), \
             because there were too many at one time: 10, and the limit is 10. Nothing is wrong with your password."
        );
        assert_eq!(said[2], "If it happens again, please send us:");
        assert!(said[3..].iter().all(|item| item.starts_with("- ")) && said.len() == 7, "{said:#?}");
    }

    #[test]
    fn what_an_administrator_writes_takes_the_place_of_what_is_built_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("de.txt");
        std::fs::write(&path, "# ours\n[greeting]\nMoin {hostname},\n").unwrap();
        let texts = Texts::load(Language::De, dir.path()).unwrap();
        let said = texts.paragraphs(&about(), &[Paragraph::Router]);
        assert_eq!(said[0], "Moin mail.example.org,");
        assert!(said[1].starts_with("Den Router neu zu starten"), "{said:?}");
        let english = Texts::load(Language::En, dir.path()).unwrap().paragraphs(&about(), &[]);
        assert_eq!(english, ["Hello,"]);
    }

    #[test]
    fn a_mistake_in_a_file_is_told_with_its_line_and_what_there_is() {
        for (text, said) in [
            ("[greetings]\n", "line 1: there is no part [greetings]; the parts are imap, pop3, "),
            ("[greeting]\nHello {name},\n", "line 2: there is no placeholder {name}; there are {address}, "),
            ("Hello\n", "line 1: this text is in no part; begin with a line such as [greeting]"),
            ("[loop]\na\n[loop]\nb\n", "line 3: the part [loop] is there twice"),
        ] {
            let error = Texts::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("en.txt");
        std::fs::write(&path, "[greeting]\nHi\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let error = Texts::load(Language::En, dir.path()).unwrap_err().to_string();
        assert!(error.contains("anyone can write to this file"), "{error}");
    }

    #[test]
    fn braces_that_are_no_placeholder_stay() {
        let texts = Texts::parse("[greeting]\na { b } {address}} {\n");
        assert!(texts.is_err(), "a space is no name");
        let texts = Texts::parse("[greeting]\n{address}} x\n").unwrap();
        assert_eq!(texts.paragraphs(&about(), &[]), ["203.0.113.7} x"]);
    }
}
