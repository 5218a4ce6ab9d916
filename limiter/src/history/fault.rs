// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Why the history cannot be written or read.

use std::{io, path::Path};

use rusqlite::ErrorCode;

use crate::trust::Distrust;

/// What is wrong with the database.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A newer build wrote it.
    #[error("a newer limiter wrote it (schema {found}, this build knows {known})")]
    Newer {
        /// The version of its tables.
        found: i64,
        /// The newest that this build knows.
        known: i64,
    },
    /// It is another program's.
    #[error("it is a database, but not a history of limiter")]
    Foreign,
    /// It is not a file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Somebody else could write to it.
    #[error("{0}")]
    Distrusted(Distrust),
    /// The database refuses.
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    /// The system does.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Fault {
    /// Whether what is in the file cannot be read any more.
    pub fn is_damage(&self) -> bool {
        let Self::Database(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch)
        )
    }

    /// Whether it helps to try again with the same connection.
    pub fn is_passing(&self) -> bool {
        let Self::Database(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
        )
    }

    /// What is wrong and what to do, in a sentence, of the database at `path`.
    pub fn sentence(&self, path: &Path) -> String {
        let file = path.display();
        match self {
            Self::Newer { .. } => format!("{file}: {self}; use that build, or move the file away"),
            Self::Foreign | Self::NotAFile => format!("{file}: {self}; move it away"),
            Self::Distrusted(_) => format!("{file}: {self}"),
            Self::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    format!("{file}: another program holds a lock on it; end that program")
                }
                Some(ErrorCode::DiskFull) => {
                    format!("{file}: there is no space left on its file system; make room")
                }
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                    format!(
                        "{file}: it is damaged ({error}); move it away, or `limiter run` does when it writes"
                    )
                }
                _ => format!("{file}: {error}; repair it, or move it away"),
            },
            Self::System(error) => format!("{file}: {error}"),
        }
    }
}
