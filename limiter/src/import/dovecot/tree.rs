// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Dovecot's settings: values in blocks in blocks.

/// Blocks inside blocks inside blocks; Dovecot itself has four.
const MAX_DEPTH: usize = 16;

/// A block, or all of it.
#[derive(Debug, Default)]
pub struct Block {
    /// Its kind: `service`.
    kind: String,
    /// Its label: `imap-login`.
    label: Option<String>,
    values: Vec<(String, String)>,
    blocks: Vec<Block>,
}

/// What a text holds.
#[derive(Debug, Default)]
pub struct Text {
    /// The settings.
    pub settings: Block,
    /// The lines that are none, with their numbers.
    pub not_understood: Vec<String>,
    /// Where it shows that a part is missing.
    pub cut: Option<String>,
}

impl Text {
    /// Reads it all.
    pub fn read(text: &str) -> Self {
        let mut reading = Reading::default();
        // With the number of the line that each block begins at.
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        while let Some((number, line)) = lines.next() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut joined = line.to_owned();
            while joined.ends_with(" \\") {
                joined.pop();
                joined.push_str(lines.next().map_or("", |(_, more)| more));
            }
            if !reading.line(number, &joined) {
                reading.text.not_understood.push(format!("line {number}: {joined}"));
            }
            if let Some(marker) = heredoc(&joined)
                && !lines.by_ref().any(|(_, line)| line == marker)
            {
                reading.cut(format!("line {number} begins a text, and no line with {marker} ends it"));
            }
            if reading.text.cut.is_some() {
                break;
            }
        }
        if let Some(&(number, _)) = reading.open.last() {
            reading.cut(format!("no line closes the block of line {number}"));
        }
        reading.text
    }
}

#[derive(Default)]
struct Reading {
    text: Text,
    /// The open blocks and where they begin, the innermost last.
    open: Vec<(usize, Block)>,
}

impl Reading {
    fn innermost(&mut self) -> &mut Block {
        self.open.last_mut().map_or(&mut self.text.settings, |(_, block)| block)
    }

    fn cut(&mut self, where_it_shows: String) {
        self.text.cut.get_or_insert(where_it_shows);
    }

    /// One line; whether it is understood.
    fn line(&mut self, number: usize, line: &str) -> bool {
        if line == "}" {
            match self.open.pop() {
                Some((_, block)) => self.innermost().blocks.push(block),
                None => self.cut(format!("line {number} closes a block that no line opens")),
            }
            return true;
        }
        if let Some((name, value)) = value(line) {
            // `service/imap-login/process_limit=4`, as -S has it.
            if self.open.is_empty() && name.contains('/') {
                return false;
            }
            self.innermost().values.push((name, value));
            return true;
        }
        let Some((head, inside)) = opened(line) else { return false };
        let Some(mut block) = Block::with_head(head) else { return false };
        if self.open.len() >= MAX_DEPTH {
            self.cut(format!("line {number} opens a block in {MAX_DEPTH} others"));
            return true;
        }
        match inside.trim() {
            "" => self.open.push((number, block)),
            // All of it on one line.
            inside => {
                let understood = inside.strip_suffix('}').is_some_and(|inside| block.read_words(inside));
                if understood {
                    self.innermost().blocks.push(block);
                }
                return understood;
            }
        }
        true
    }
}

impl Block {
    /// `service imap-login`, `passdb`
    fn with_head(head: &str) -> Option<Self> {
        let head = head.trim();
        let (kind, label) = match head.split_once(char::is_whitespace) {
            Some((kind, label)) => (kind, Some(unquoted(label))),
            None => (head, None),
        };
        let is_word = |word: &str| !word.is_empty() && !word.contains(['=', '{', '}', '"']);
        is_word(kind).then(|| Self { kind: kind.to_owned(), label, ..Self::default() })
    }

    /// Reads what stands between braces on one line: `NAME = WORD` once or more, and blocks of that.
    fn read_words(&mut self, inside: &str) -> bool {
        let mut rest = inside.trim();
        while !rest.is_empty() {
            if let Some((head, after)) = opened(rest)
                && !head.contains('=')
                && let Some(mut block) = Self::with_head(head)
            {
                let Some((inner, behind)) = after.split_once('}') else { return false };
                if inner.contains('{') || !block.read_words(inner) {
                    return false;
                }
                self.blocks.push(block);
                rest = behind.trim_start();
                continue;
            }
            let Some((name, after)) = rest.split_once('=') else { return false };
            let after = after.trim_start();
            let end = match after.strip_prefix('"') {
                Some(quoted) => quoted.find('"').map_or(after.len(), |end| end + 2),
                None => after.find(char::is_whitespace).unwrap_or(after.len()),
            };
            let Some((name, value)) = value(&format!("{name}= {}", &after[..end])) else { return false };
            self.values.push((name, value));
            rest = after[end..].trim_start();
        }
        true
    }

    /// The value of that name here; the last one if there are several, as Dovecot has it.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// All values here.
    pub fn values(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The blocks of a kind here.
    pub fn blocks<'a, 'b>(
        &'a self,
        kind: &'b str,
    ) -> impl DoubleEndedIterator<Item = &'a Self> + use<'a, 'b> {
        self.blocks.iter().filter(move |block| block.kind == kind)
    }

    /// All blocks here.
    pub fn all_blocks(&self) -> &[Self] {
        &self.blocks
    }

    /// The blocks of this kind and label; the last one counts most.
    pub fn labelled<'a, 'b>(
        &'a self,
        kind: &'b str,
        label: &'b str,
    ) -> impl Iterator<Item = &'a Self> + use<'a, 'b> {
        self.blocks(kind).rev().filter(move |block| block.label.as_deref() == Some(label))
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its label.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Kind and label.
    pub fn head(&self) -> String {
        match &self.label {
            Some(label) => format!("{} {label}", self.kind),
            None => self.kind.clone(),
        }
    }
}

/// What stands before and behind the first brace that is not in quotes.
fn opened(line: &str) -> Option<(&str, &str)> {
    let mut in_quotes = false;
    let brace = line.find(|char| {
        in_quotes ^= char == '"';
        char == '{' && !in_quotes
    })?;
    Some((&line[..brace], &line[brace + 1..]))
}

/// `NAME = VALUE`, where either may be in quotes.
fn value(line: &str) -> Option<(String, String)> {
    let (name, value) = match line.strip_prefix('"') {
        Some(rest) => {
            let (name, rest) = rest.split_once('"')?;
            (name, rest.trim_start().strip_prefix('=')?)
        }
        None => {
            let (name, value) = line.split_once('=')?;
            (name.trim(), value)
        }
    };
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace) && !name.contains(['{', '}']);
    is_name.then(|| (name.to_owned(), unquoted(value)))
}

/// The word that ends the text which this line begins: `NAME = <<END`.
fn heredoc(line: &str) -> Option<&str> {
    let (_, value) = line.split_once('=')?;
    let marker = value.trim().strip_prefix("<<")?;
    (!marker.is_empty() && marker.chars().all(|char| char.is_ascii_alphanumeric() || char == '_'))
        .then_some(marker)
}

/// A value without its quotes, or without the comment behind it.
fn unquoted(text: &str) -> String {
    let text = text.trim();
    let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        let end = if text.starts_with('#') { Some(0) } else { text.find(" #") };
        return text[..end.unwrap_or(text.len())].trim_end().to_owned();
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    while let Some(char) = chars.next() {
        value.push(if char == '\\' { chars.next().unwrap_or(char) } else { char });
    }
    value.trim().to_owned()
}
