//! What is wrong with a configuration, all of it at once, without a value that could be a secret.

use std::fmt;
use std::path::{Path, PathBuf};

/// Everything that is wrong with one configuration, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file as the operator named it.
    pub file: PathBuf,
    /// At least one.
    pub problems: Vec<Problem>,
}

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, counted from 1; 0 if the file as a whole is meant.
    pub line: usize,
    /// `section.key`; empty if the text is no TOML at this place.
    pub key: String,
    /// What should stand there, to be read after "expected".
    pub expected: String,
}

impl ConfigErrors {
    pub(super) fn new(file: &Path, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.line);
        Self { file: file.to_owned(), problems }
    }

    /// One complaint about the file as a whole.
    pub(super) fn whole_file(file: &Path, expected: String) -> Self {
        Self::new(file, vec![Problem { line: 0, key: String::new(), expected }])
    }
}

impl fmt::Display for ConfigErrors {
    /// `FILE:LINE: section.key: expected …`, one complaint a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.file.display())?;
            if problem.line > 0 {
                write!(f, ":{}", problem.line)?;
            }
            if !problem.key.is_empty() {
                write!(f, ": {}", problem.key)?;
            }
            write!(f, ": expected {}", problem.expected)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
