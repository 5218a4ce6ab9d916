// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Links of the documents: the file is there, and has the heading. Those to other hosts are not tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use pulldown_cmark::{BrokenLink, CowStr, Event, Options, Parser, Tag, TagEnd};

/// Checks the documents among these files.
///
/// # Errors
///
/// Which links lead nowhere.
pub fn check(files: &[PathBuf], root: &Path) -> Result<()> {
    let mut pages = BTreeMap::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        pages.insert(file.clone(), Page::read(&text));
    }
    let broken: Vec<String> = pages
        .iter()
        .flat_map(|(file, page)| {
            let complaints = page.links.iter().filter_map(|link| complaint(file, link, &pages));
            complaints.map(|complaint| {
                format!("{}: {complaint}", file.strip_prefix(root).unwrap_or(file).display())
            })
        })
        .collect();
    if broken.is_empty() { Ok(()) } else { bail!("links that lead nowhere:\n{}", broken.join("\n")) }
}

/// What is wrong with a link in a file.
fn complaint(file: &Path, link: &Link, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    let Link { line, to } = link;
    if to.contains("://") || to.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) =
        to.split_once('#').map_or((to.as_str(), None), |(path, anchor)| (path, Some(anchor)));
    let target = if path.is_empty() { file.to_owned() } else { plain(&file.parent()?.join(path)) };
    if !target.exists() {
        return Some(format!("line {line}: {to}: there is no such file"));
    }
    let anchor = anchor?;
    let has_it = pages.get(&target).is_some_and(|page| page.anchors.contains(anchor));
    (!has_it).then(|| format!("line {line}: {to}: there is no such heading"))
}

/// Without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
        plain
    })
}

/// What a link says, and where.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    line: usize,
    to: String,
}

/// Where a document leads, and where one can go in it.
#[derive(Debug, Default)]
struct Page {
    links: Vec<Link>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let line = |offset: usize| text[..offset].matches('\n').count() + 1;
        let mut broken = Vec::new();
        let mut page = Self::default();
        let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
        let undefined = |link: BrokenLink<'_>| {
            // `[x]` alone is text, and a list's box; `[x][y]` is meant to be a link.
            if text[link.span.clone()].contains("][") {
                broken.push(Link { line: line(link.span.start), to: format!("[{}]", link.reference) });
            }
            None::<(CowStr<'_>, CowStr<'_>)>
        };
        let mut heading: Option<String> = None;
        for (event, span) in
            Parser::new_with_broken_link_callback(text, options, Some(undefined)).into_offset_iter()
        {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Link { line: line(span.start), to: dest_url.into_string() });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.add_anchor(&heading.take().unwrap_or_default()),
                Event::Text(words) | Event::Code(words) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&words);
                    }
                }
                _ => {}
            }
        }
        page.links.append(&mut broken);
        page
    }

    /// As GitHub and GitLab name it: small letters, digits, `-` and `_`, a space as `-`; with a number where there is
    /// one already.
    fn add_anchor(&mut self, heading: &str) {
        let kept = |c: char| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c => c.is_alphanumeric().then_some(c),
        };
        let anchor: String = heading.to_lowercase().chars().filter_map(kept).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|name| !self.anchors.contains(name));
        self.anchors.extend(free);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(pages: &[(&str, &str)]) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (name, text) in pages {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap())?;
            fs::write(&file, text)?;
            files.push(file);
        }
        check(&files, folder.path())
    }

    #[test]
    fn links_to_files_and_headings_that_are_there_are_right() {
        let one = "# The `ledger` is full\n\n[here](#the-ledger-is-full), [there](docs/two.md#twice-1), [a file](x.toml),\n\
                   [elsewhere](https://example.net/#x), [a folder](docs), <https://example.net>\n";
        let two = "## Twice\n\n## Twice\n\n[back](../one.md)\n";
        checked(&[("one.md", one), ("docs/two.md", two), ("x.toml", "")]).unwrap();
    }

    #[test]
    fn a_link_to_what_is_not_there_is_found_with_its_line() {
        let error = checked(&[("docs/a.md", "# A\n\nsee [b](../b.md)\nor [c](#d) or [e][f]\n")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "links that lead nowhere:\n\
             docs/a.md: line 3: ../b.md: there is no such file\n\
             docs/a.md: line 4: #d: there is no such heading\n\
             docs/a.md: line 4: [f]: there is no such file"
        );
    }

    #[test]
    fn what_stands_in_code_is_no_link() {
        checked(&[("a.md", "`[a](b.md)`\n\n```\n[a](b.md)\n```\n\n[defaults] [x]\n")]).unwrap();
    }
}
