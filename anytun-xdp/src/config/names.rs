//! The names of the tables of one kind.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::document::{At, Table};
use super::error::Report;
use super::nearest::suggestion;

/// Names of the tables of one kind: each once, found by name.
pub(super) struct Names {
    kind: &'static str,
    /// By name: index and line of the table.
    places: HashMap<String, At<usize>>,
    /// How many tables there are, those without a usable name included.
    tables: usize,
}

impl Names {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, places: HashMap::new(), tables: 0 }
    }

    /// Takes the name of the next table. Reports a name that is missing, unusable or taken.
    pub(super) fn take(&mut self, report: &mut Report, table: &Table<'_>) -> Option<String> {
        let index = self.tables;
        self.tables += 1;
        table.require(report, "name");
        let At { line, value: name } = table.string(report, "name")?;
        if let Err(why) = check_name(name) {
            report.error(line, format!("the name of a {} {why}", self.kind));
            return None;
        }
        match self.places.entry(name.to_owned()) {
            Entry::Vacant(vacant) => {
                vacant.insert(At { line: table.line, value: index });
                Some(name.to_owned())
            }
            Entry::Occupied(taken) => {
                let other = taken.get().line;
                report.error(line, format!("the name {name:?} is already that of the {} of line {other}", self.kind));
                None
            }
        }
    }

    /// The index of the table that `table` refers to with the key of this kind. The key may be left out when there is
    /// one such table only.
    pub(super) fn refer(&self, report: &mut Report, table: &Table<'_>) -> Option<usize> {
        let kind = self.kind;
        if !table.has(kind) {
            let wrong = match self.tables {
                0 => format!("there is no [[{kind}]] this {} could belong to", table.name()),
                1 => return Some(0),
                count => format!(
                    "[[{}]] lacks the key `{kind}`, which may be left out only when there is one {kind}: there are {count}",
                    table.name()
                ),
            };
            report.error(table.line, wrong);
            return None;
        }
        let name = table.string(report, kind)?;
        self.find(report, name)
    }

    /// The index of the table that has a name. Reports a name that none has.
    pub(super) fn find(&self, report: &mut Report, At { line, value: name }: At<&str>) -> Option<usize> {
        let kind = self.kind;
        let found = self.places.get(name);
        if found.is_none() {
            let mut known: Vec<&str> = self.places.keys().map(String::as_str).collect();
            known.sort_unstable();
            report.error(line, format!("there is no {kind} {name:?}{}", suggestion(name, known.into_iter(), '"')));
        }
        found.map(|place| place.value)
    }
}

/// Whether a name can be shown on one line and told from others.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("is empty")
    } else if name.trim() != name {
        Err("begins or ends with white space")
    } else if name.chars().any(char::is_control) {
        Err("contains a control character")
    } else {
        Ok(())
    }
}
