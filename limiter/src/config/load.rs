// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From a path, or from text, to the resolved configuration.

use std::{io::Read as _, path::Path};

use super::{
    Config, ConfigError,
    error::{Complaint, Located},
    file, resolve, schema,
};

/// The configuration file where none is named.
pub const DEFAULT_PATH: &str = "/etc/limiter/limiter.toml";

/// Largest configuration file that is read, in bytes: enough for 100,000 rules with a comment each.
pub const MAX_FILE_BYTES: u64 = 8 << 20;

/// Reads the file at `path`.
///
/// # Errors
/// If [`read`] refuses it, or it says what cannot be meant.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(&read(path)?, &path.display().to_string())
}

/// The text of the file at `path`.
///
/// # Errors
/// If it is no file, cannot be read, is larger than [`MAX_FILE_BYTES`], no text, or such that somebody
/// else than root could have written it.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let file = file::open(path)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| ConfigError::Unreadable { file: name.clone(), error })?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { file: name });
    }
    String::from_utf8(bytes).map_err(|error| {
        let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        invalid(&String::from_utf8_lossy(valid), &name, Complaint::NotUtf8.at(valid.len()))
    })
}

/// Reads a configuration from `text`; `name` is what errors call it.
///
/// # Errors
/// If it says what cannot be meant.
pub fn parse(text: &str, name: &str) -> Result<Config, ConfigError> {
    // Editors of other systems leave a byte order mark; it is no character of any line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    schema::read(text)
        .and_then(|schema| resolve::resolve(schema, &|at| position(text, at).0))
        .map_err(|located| invalid(text, name, located))
}

fn invalid(text: &str, name: &str, located: Located) -> ConfigError {
    let (line, column) = position(text, located.at);
    ConfigError::Invalid { file: name.to_owned(), line, column, complaint: Box::new(located.complaint) }
}

/// Line and column, both from 1, of the character that holds byte `at`.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.char_indices().take_while(|&(start, char)| start + char.len_utf8() <= at);
    before.fold(
        (1, 1),
        |(line, column), (_, char)| {
            if char == '\n' { (line + 1, 1) } else { (line, column + 1) }
        },
    )
}
