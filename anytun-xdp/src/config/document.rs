//! A TOML document whose every part knows its line, and typed access to its tables.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Report;
use super::nearest::suggestion;

/// A value and its line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At<T> {
    pub(super) line: usize,
    pub(super) value: T,
}

/// The offsets at which the lines of a text begin.
pub(super) struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        let after_newlines = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// The line, from 1, that holds an offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Line and column, both from 1; the column counts characters.
    pub(super) fn position(&self, text: &str, offset: usize) -> (usize, usize) {
        let line = self.line(offset);
        let before = self.starts.get(line.wrapping_sub(1)).and_then(|start| text.get(*start..offset));
        (line, before.map_or(0, |before| before.chars().count()) + 1)
    }
}

/// Where a document begins in the text it is a piece of.
#[derive(Clone, Copy)]
struct Origin<'a> {
    /// Offset of the piece.
    start: usize,
    /// The line in which it begins.
    line: usize,
    /// Offsets of the further lines of the piece: every value's line is looked up, so the fewer the better.
    further: &'a [usize],
}

impl<'a> Origin<'a> {
    fn new(lines: &'a Lines, piece: &Range<usize>) -> Self {
        let line = lines.line(piece.start);
        Self { start: piece.start, line, further: &lines.starts[line..lines.line(piece.end)] }
    }

    /// The line, in the whole text, of an offset into the piece.
    fn line(&self, offset: usize) -> usize {
        self.line + self.further.partition_point(|start| *start <= self.start + offset)
    }
}

/// A piece of the text, parsed.
pub(super) struct Document<'a> {
    root: Spanned<DeTable<'a>>,
    origin: Origin<'a>,
}

impl<'a> Document<'a> {
    /// Parses a piece of a text. On syntax errors every one of them is reported, with its place and without the text
    /// around it, which may be a secret.
    pub(super) fn parse(text: &'a str, piece: Range<usize>, lines: &'a Lines, report: &mut Report) -> Option<Self> {
        let start = piece.start;
        let (root, errors) = DeTable::parse_recoverable(&text[piece.clone()]);
        if errors.is_empty() {
            return Some(Self { root, origin: Origin::new(lines, &piece) });
        }
        let mut seen = 0;
        for error in errors {
            let offset = error.span().map_or(piece.end, |span| start + span.start);
            let (line, column) = lines.position(text, offset);
            // What follows on the same line is mostly the first error's echo.
            if line != seen {
                report.error(line, format!("TOML syntax, column {column}: {}", error.message()));
            }
            seen = line;
        }
        None
    }

    /// Whether a name is used at the top, as whatever.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.get_ref().contains_key(name)
    }

    /// Adds the tables to `found`, which has a list for each schema. Unknown tables and keys are reported.
    pub(super) fn tables<'d>(&'d self, report: &mut Report, schemas: &'static [Schema], found: &mut [Vec<Table<'d>>]) {
        for (key, value) in self.root.get_ref() {
            let name: &str = key.get_ref();
            let line = self.origin.line(key.span().start);
            let known = schemas.iter().zip(found.iter_mut()).find(|(schema, _)| schema.name == name);
            let Some((schema, found)) = known else {
                report.error(line, unknown(name, value.get_ref(), schemas));
                continue;
            };
            match (value.get_ref(), schema.form) {
                (DeValue::Table(entries), Form::Single) => {
                    found.push(Table::new(report, schema, line, entries, self.origin));
                }
                (DeValue::Array(array), Form::Repeated) if array.iter().all(|element| element.get_ref().is_table()) => {
                    for element in array {
                        if let DeValue::Table(entries) = element.get_ref() {
                            let line = self.origin.line(element.span().start);
                            found.push(Table::new(report, schema, line, entries, self.origin));
                        }
                    }
                }
                (other, _) => {
                    let (header, found) = (schema.header(), type_name(other));
                    report.error(line, format!("`{name}` must be written as {header}, not as {found}"));
                }
            }
        }
    }
}

/// How a table is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Once: `[name]`.
    Single,
    /// As often as one likes: `[[name]]`.
    Repeated,
    /// As a value: `name = { … }`, or a list of those.
    Inline,
}

/// The name of a table and of the keys it may have.
pub(super) struct Schema {
    pub(super) name: &'static str,
    pub(super) form: Form,
    pub(super) keys: &'static [&'static str],
}

impl Schema {
    /// As the table is written in the file.
    pub(super) fn header(&self) -> String {
        match self.form {
            Form::Single => format!("[{}]", self.name),
            Form::Repeated => format!("[[{}]]", self.name),
            Form::Inline => format!("`{}`", self.name),
        }
    }
}

/// One table of the document.
pub(super) struct Table<'a> {
    schema: &'static Schema,
    /// The line of its header.
    pub(super) line: usize,
    entries: &'a DeTable<'a>,
    origin: Origin<'a>,
}

impl<'a> Table<'a> {
    fn new(
        report: &mut Report,
        schema: &'static Schema,
        line: usize,
        entries: &'a DeTable<'a>,
        origin: Origin<'a>,
    ) -> Self {
        for key in entries.keys() {
            let name: &str = key.get_ref();
            if !schema.keys.contains(&name) {
                let hint = suggestion(name, schema.keys.iter().copied(), '`');
                report
                    .error(origin.line(key.span().start), format!("unknown key `{name}` in {}{hint}", schema.header()));
            }
        }
        Self { schema, line, entries, origin }
    }

    /// The name of its kind.
    pub(super) fn name(&self) -> &'static str {
        self.schema.name
    }

    /// Whether the table has a key, of whatever type.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The line of a key's value; that of the table when there is no such key.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.entries.get(key).map_or(self.line, |value| self.origin.line(value.span().start))
    }

    /// Reports a key that must be there and is not.
    pub(super) fn require(&self, report: &mut Report, key: &str) {
        if !self.has(key) {
            report.error(self.line, format!("{} lacks the key `{key}`", self.schema.header()));
        }
    }

    fn get<T>(
        &self,
        report: &mut Report,
        key: &str,
        wanted: &str,
        cast: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let value = self.entries.get(key)?;
        let line = self.origin.line(value.span().start);
        let cast = cast(value.get_ref());
        if cast.is_none() {
            report.error(line, format!("`{key}` must be {wanted}, not {}", type_name(value.get_ref())));
        }
        cast.map(|value| At { line, value })
    }

    pub(super) fn string(&self, report: &mut Report, key: &str) -> Option<At<&'a str>> {
        self.get(report, key, "a string", DeValue::as_str)
    }

    pub(super) fn boolean(&self, report: &mut Report, key: &str) -> Option<At<bool>> {
        self.get(report, key, "true or false", DeValue::as_bool)
    }

    pub(super) fn integer<T: TryFrom<i64>>(
        &self,
        report: &mut Report,
        key: &str,
        range: RangeInclusive<i64>,
    ) -> Option<At<T>> {
        let At { line, value: integer } = self.get(report, key, "an integer", DeValue::as_integer)?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if value.is_none() {
            let (first, last) = range.into_inner();
            report.error(line, format!("`{key}` is {integer}; it must be {first} to {last}"));
        }
        value.map(|value| At { line, value })
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&self, report: &mut Report, key: &str, choices: &[(&str, T)]) -> Option<At<T>> {
        let At { line, value: word } = self.string(report, key)?;
        let choice = choices.iter().find(|(name, _)| *name == word);
        if choice.is_none() {
            let words: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            report.error(line, format!("`{key}` cannot be {word:?}; it must be one of {}", words.join(", ")));
        }
        choice.map(|(_, value)| At { line, value: *value })
    }

    /// A table as a value, or a list of those. Elements of other types are reported and left out.
    pub(super) fn inline(&self, report: &mut Report, key: &str, schema: &'static Schema) -> Option<Vec<Table<'a>>> {
        let At { line, value } = self.get(report, key, "a table such as { … }, or a list of those", |value| {
            (value.is_table() || value.is_array()).then_some(value)
        })?;
        let table = |report: &mut Report, line, value: &'a DeValue<'a>| match value.as_table() {
            Some(entries) => Some(Table::new(report, schema, line, entries, self.origin)),
            None => {
                let found = type_name(value);
                report.error(line, format!("`{key}` must be a list of tables, but one of them is {found}"));
                None
            }
        };
        let Some(list) = value.as_array() else { return table(report, line, value).map(|one| vec![one]) };
        let one = |element: &'a Spanned<DeValue<'a>>| {
            let line = self.origin.line(element.span().start);
            table(report, line, element.get_ref())
        };
        list.iter().map(one).collect()
    }

    /// One string or a list of strings, each with its line.
    pub(super) fn string_or_strings(&self, report: &mut Report, key: &str) -> Option<At<Vec<At<&'a str>>>> {
        let is_one = |value: &DeValue<'_>| (value.is_str() || value.is_array()).then_some(value.is_str());
        match self.get(report, key, "a string or a list of strings", is_one)?.value {
            true => self.string(report, key).map(|one| At { line: one.line, value: vec![one] }),
            false => self.strings(report, key),
        }
    }

    /// A list of strings, each with its line. Elements of other types are reported and left out.
    pub(super) fn strings(&self, report: &mut Report, key: &str) -> Option<At<Vec<At<&'a str>>>> {
        let array = self.get(report, key, "a list of strings", DeValue::as_array)?;
        let mut strings = Vec::with_capacity(array.value.len());
        for element in array.value {
            let line = self.origin.line(element.span().start);
            match element.get_ref().as_str() {
                Some(value) => strings.push(At { line, value }),
                None => report.error(
                    line,
                    format!("`{key}` must be a list of strings, but one of them is {}", type_name(element.get_ref())),
                ),
            }
        }
        Some(At { line: array.line, value: strings })
    }
}

fn unknown(name: &str, value: &DeValue<'_>, schemas: &[Schema]) -> String {
    let hint = suggestion(name, schemas.iter().map(|schema| schema.name), '`');
    match value {
        DeValue::Table(_) => format!("unknown table [{name}]{hint}"),
        DeValue::Array(array) if array.iter().any(|element| element.get_ref().is_table()) => {
            format!("unknown table [[{name}]]{hint}")
        }
        _ => format!("unknown key `{name}` outside of every table{hint}"),
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(array) if array.iter().any(|element| element.get_ref().is_table()) => "a list of tables",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines_and_columns() {
        let text = "ab\n\nüx\n";
        let lines = Lines::new(text);
        assert_eq!(lines.position(text, 0), (1, 1));
        assert_eq!(lines.position(text, 2), (1, 3));
        assert_eq!(lines.position(text, 3), (2, 1));
        assert_eq!(lines.position(text, 6), (3, 2), "ü has two octets and is one character");
        assert_eq!(lines.position(text, text.len()), (4, 1));
    }
}
