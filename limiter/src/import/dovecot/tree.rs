//! Dovecot's settings: values in blocks in blocks.

/// Blocks inside blocks inside blocks; Dovecot itself has four.
const MAX_DEPTH: usize = 16;

/// A block, or all of it.
#[derive(Debug, Default)]
pub struct Block {
    /// Its kind and label: `service imap-login`.
    head: String,
    values: Vec<(String, String)>,
    blocks: Vec<Block>,
}

impl Block {
    /// Reads the text; what is no setting of Dovecot is passed over.
    pub fn read(text: &str) -> Self {
        let mut open = vec![Self::default()];
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if line == "}" {
                close(&mut open);
            } else if let Some(head) = line.strip_suffix('{')
                && !line.contains('=')
            {
                if open.len() > MAX_DEPTH {
                    break;
                }
                open.push(Self { head: head.trim().to_owned(), ..Self::default() });
            } else if let Some((name, value)) = line.split_once('=')
                && let Some(block) = open.last_mut()
            {
                block.values.push((name.trim().to_owned(), unquoted(value).to_owned()));
            }
        }
        while open.len() > 1 {
            close(&mut open);
        }
        open.pop().unwrap_or_default()
    }

    /// The value of that name here; the last one if there are several, as Dovecot has it.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The blocks of a kind here.
    pub fn blocks<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Self> {
        self.blocks.iter().filter(move |block| block.head.split_whitespace().next() == Some(kind))
    }

    /// The block of this kind and label.
    pub fn block(&self, kind: &str, label: &str) -> Option<&Self> {
        self.blocks.iter().rev().find(|block| {
            block
                .head
                .split_once(char::is_whitespace)
                .is_some_and(|head| (head.0, unquoted(head.1)) == (kind, label))
        })
    }

    /// Its label.
    pub fn label(&self) -> Option<&str> {
        self.head.split_once(char::is_whitespace).map(|(_, label)| unquoted(label))
    }
}

/// Puts the innermost open block into the one around it.
fn close(open: &mut Vec<Block>) {
    if open.len() > 1
        && let Some(block) = open.pop()
        && let Some(outer) = open.last_mut()
    {
        outer.blocks.push(block);
    }
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text).trim()
}
