//! A TOML document walked by section and key; every complaint is kept with its line.
//!
//! A key that nobody asked for is unknown: the reader's own calls are the only list of keys there is.

use super::errors::Problem;
use super::rules::Rule;
use std::cell::RefCell;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Ends every complaint about something that is absent.
pub(super) const REQUIRED: &str = "(required)";

/// The complaints about one document, and the lines they need.
pub(super) struct Notebook<'t> {
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    lines: RefCell<BTreeMap<String, usize>>,
}

impl<'t> Notebook<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default(), lines: RefCell::default() }
    }

    /// The line, counted from 1, on which this byte stands.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn complain(&self, line: usize, key: impl Into<String>, expected: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { line, key: key.into(), expected: expected.into() });
    }

    /// All complaints, and the line of every key that was read.
    pub(super) fn finish(self) -> (Vec<Problem>, BTreeMap<String, usize>) {
        (self.problems.into_inner(), self.lines.into_inner())
    }
}

/// One section. An absent one reads as an empty one.
pub(super) struct Section<'n, 't> {
    notebook: &'n Notebook<'t>,
    /// `exchange.custom`; empty for the document itself.
    path: String,
    /// Of its heading, or of what it would stand under.
    line: usize,
    table: Option<&'n DeTable<'t>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'n, 't> Section<'n, 't> {
    /// The whole document.
    pub(super) fn root(notebook: &'n Notebook<'t>, table: &'n DeTable<'t>) -> Self {
        Self { notebook, path: String::new(), line: 1, table: Some(table), asked: RefCell::default() }
    }

    /// The section of this name below this one.
    pub(super) fn section(&self, name: &'static str) -> Self {
        let found = self.entry(name);
        let line = found.map_or(self.line, |(key, _)| self.notebook.line(key.span().start));
        let table = found.and_then(|(_, value)| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.notebook.complain(line, self.full(name), format!("the section [{}]", self.full(name)));
            }
            table
        });
        self.notebook.lines.borrow_mut().insert(self.full(name), line);
        Self { notebook: self.notebook, path: self.full(name), line, table, asked: RefCell::default() }
    }

    /// The sections `[[name]]` below this one.
    pub(super) fn sections(&self, name: &'static str) -> Vec<Self> {
        let Some((key, value)) = self.entry(name) else { return Vec::new() };
        let tables: Option<Vec<_>> = value
            .get_ref()
            .as_array()
            .and_then(|array| array.iter().map(|item| Some((item.span().start, item.get_ref().as_table()?))).collect());
        let Some(tables) = tables else {
            let line = self.notebook.line(key.span().start);
            self.notebook.complain(line, self.full(name), format!("sections [[{}]]", self.full(name)));
            return Vec::new();
        };
        let section = |(start, table)| Self {
            notebook: self.notebook,
            path: self.full(name),
            line: self.notebook.line(start),
            table: Some(table),
            asked: RefCell::default(),
        };
        tables.into_iter().map(section).collect()
    }

    /// True if the key is written in this section.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.entry(key).is_some()
    }

    /// True if the section is written in the file.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// The value of `key` if it is there and keeps the rule; one that does not is complained about.
    pub(super) fn read<T>(&self, key: &'static str, rule: &Rule<T>) -> Option<T> {
        let (name, value) = self.entry(key)?;
        let line = self.notebook.line(name.span().start);
        self.notebook.lines.borrow_mut().insert(self.full(key), line);
        self.value(key, line, value, rule)
    }

    /// As [`read`](Self::read), into its place; absent leaves the default there.
    pub(super) fn set<T>(&self, key: &'static str, place: &mut T, rule: &Rule<T>) {
        if let Some(value) = self.read(key, rule) {
            *place = value;
        }
    }

    /// As [`read`](Self::read); absent is complained about.
    pub(super) fn require<T>(&self, key: &'static str, rule: &Rule<T>) -> Option<T> {
        if self.entry(key).is_none() {
            self.notebook.complain(self.line, self.full(key), format!("{} {REQUIRED}", rule.expected));
        }
        self.read(key, rule)
    }

    /// A list of good values, no two alike. Those that are not are complained about on their own lines, and all are lost.
    pub(super) fn list<T: PartialEq>(&self, key: &'static str, rule: &Rule<T>) -> Option<Vec<T>> {
        let (name, value) = self.entry(key)?;
        let line = self.notebook.line(name.span().start);
        self.notebook.lines.borrow_mut().insert(self.full(key), line);
        let Some(array) = value.get_ref().as_array() else {
            let found = found(value.get_ref());
            self.notebook.complain(line, self.full(key), format!("a list, each entry {}{found}", rule.expected));
            return None;
        };
        // With the places they were written at, for duplicates.
        let mut good: Vec<(usize, T)> = Vec::new();
        for (position, item) in array.iter().enumerate() {
            let line = self.notebook.line(item.span().start);
            let Some(value) = self.value(key, line, item, rule) else { continue };
            match good.iter().find(|(_, earlier)| *earlier == value) {
                Some((earlier, _)) => {
                    let again = format!("each entry once; entry {} repeats entry {}", position + 1, earlier + 1);
                    self.notebook.complain(line, self.full(key), again);
                }
                None => good.push((position, value)),
            }
        }
        (good.len() == array.iter().count()).then(|| good.into_iter().map(|(_, value)| value).collect())
    }

    /// A complaint at `key`, or at the section's heading where the key is absent.
    pub(super) fn complain(&self, key: &'static str, expected: impl Into<String>) {
        let line = self.entry(key).map_or(self.line, |(name, _)| self.notebook.line(name.span().start));
        self.notebook.complain(line, self.full(key), expected);
    }

    /// A complaint about the section itself.
    pub(super) fn complain_of_it(&self, expected: impl Into<String>) {
        self.notebook.complain(self.line, self.path.clone(), expected);
    }

    /// Everything there is to ask has been asked; what is left is unknown.
    pub(super) fn close(self) {
        let Some(table) = self.table else { return };
        let asked = self.asked.borrow();
        for key in table.keys().filter(|key| !asked.contains(&key.get_ref().as_ref())) {
            let line = self.notebook.line(key.span().start);
            let kind = if self.path.is_empty() { "sections" } else { "keys" };
            let expected = format!("one of the {kind} {}", asked.join(", "));
            self.notebook.complain(line, self.full(&printable(key.get_ref())), expected);
        }
    }

    fn value<T>(&self, key: &str, line: usize, value: &Spanned<DeValue<'t>>, rule: &Rule<T>) -> Option<T> {
        let good = (rule.read)(value.get_ref());
        if good.is_none() {
            let found = if value.get_ref().type_str() == rule.kind { String::new() } else { found(value.get_ref()) };
            self.notebook.complain(line, self.full(key), format!("{}{found}", rule.expected));
        }
        good
    }

    fn entry(&self, key: &'static str) -> Option<(&'n Spanned<DeString<'t>>, &'n Spanned<DeValue<'t>>)> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        self.table?.iter().find(|(name, _)| name.get_ref() == key)
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// What stands there, by kind alone: the value could be a secret.
fn found(value: &DeValue<'_>) -> String {
    format!(", found {}", article(value.type_str()))
}

fn article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// A key from the file, harmless on a terminal.
fn printable(key: &str) -> String {
    key.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}
