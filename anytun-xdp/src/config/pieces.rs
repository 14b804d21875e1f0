//! Cutting a text into TOML documents that can be parsed one after the other.
//!
//! A parsed document takes many times the room of its text. With 60,000 clients as one document that would be half a
//! gigabyte and most of the time, so clients are parsed a few at a time.

use std::ops::Range;

use super::document::{Form, Schema};

/// Clients of one piece.
const CLIENTS: usize = 64;

/// Ranges of the text, each a document of its own. Together they are the whole text.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Pieces {
    /// With tables of all kinds.
    pub(super) mixed: Vec<Range<usize>>,
    /// With tables of the last schema only.
    pub(super) clients: Vec<Range<usize>>,
}

/// Cuts a text where a table begins. A text is not cut if that could change its meaning: where keys stand before the
/// first header, where a header is written in another way than `[name]` or `[[name]]` on a line of its own, where a
/// table that may not be repeated is, or where a string can span lines.
pub(super) fn cut(text: &str, schemas: &[Schema]) -> Pieces {
    let spans_lines = text.contains("\"\"\"") || text.contains("'''");
    let headers = if spans_lines { None } else { headers(text, schemas) };
    let Some(headers) = headers else {
        return Pieces { mixed: std::iter::once(0..text.len()).collect(), clients: Vec::new() };
    };
    let mut pieces = Pieces { mixed: Vec::new(), clients: Vec::new() };
    let mut start = 0;
    let mut rest = headers.as_slice();
    while let [(_, first), ..] = rest {
        let is_client = |schema: usize| schema + 1 == schemas.len();
        let limit = if is_client(*first) { CLIENTS } else { usize::MAX };
        let alike = rest.iter().take(limit).take_while(|(_, schema)| is_client(*schema) == is_client(*first)).count();
        let end = rest.get(alike).map_or(text.len(), |(offset, _)| *offset);
        let list = if is_client(*first) { &mut pieces.clients } else { &mut pieces.mixed };
        list.push(start..end);
        (start, rest) = (end, &rest[alike..]);
    }
    pieces
}

/// Offset and schema of every header, if the text can be cut at them.
fn headers(text: &str, schemas: &[Schema]) -> Option<Vec<(usize, usize)>> {
    let names: Vec<String> = schemas.iter().map(Schema::header).collect();
    let mut seen = vec![false; schemas.len()];
    let mut headers = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim();
        if content.starts_with('[') {
            let schema = names.iter().position(|name| {
                let behind = content.strip_prefix(name.as_str()).map(str::trim_start);
                behind.is_some_and(|behind| behind.is_empty() || behind.starts_with('#'))
            })?;
            if seen[schema] && schemas[schema].form == Form::Single {
                return None;
            }
            seen[schema] = true;
            headers.push((offset, schema));
        } else if headers.is_empty() && !content.is_empty() && !content.starts_with('#') {
            return None;
        }
        offset += line.len();
    }
    (!headers.is_empty()).then_some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    static SCHEMAS: [Schema; 3] = [
        Schema { name: "node", form: Form::Single, keys: &[] },
        Schema { name: "network", form: Form::Repeated, keys: &[] },
        Schema { name: "client", form: Form::Repeated, keys: &[] },
    ];

    fn texts<'a>(text: &'a str, ranges: &[Range<usize>]) -> Vec<&'a str> {
        ranges.iter().map(|range| &text[range.clone()]).collect()
    }

    #[test]
    fn clients_are_apart_from_the_rest() {
        let text = "# comment\n[node]\na = 1\n[[client]]\nb = 2\n  [[client]] # c\n[[network]]\nd = [\n1]\n[[client]]";
        let pieces = cut(text, &SCHEMAS);
        assert_eq!(texts(text, &pieces.mixed), ["# comment\n[node]\na = 1\n", "[[network]]\nd = [\n1]\n"]);
        assert_eq!(texts(text, &pieces.clients), ["[[client]]\nb = 2\n  [[client]] # c\n", "[[client]]"]);
        let many = "[[client]]\n".repeat(2 * CLIENTS + 1);
        let lengths: Vec<usize> = cut(&many, &SCHEMAS).clients.iter().map(Range::len).collect();
        assert_eq!(lengths, [11 * CLIENTS, 11 * CLIENTS, 11]);
    }

    #[test]
    fn what_cannot_be_cut_stays_whole() {
        for text in [
            "",
            "a = 1\n[[client]]\n",
            "[[client]]\na = \"\"\"\n[[client]]\n\"\"\"\n",
            "[[client]]\n[[ client ]]\n",
            "[[client]]\n[log]\n",
            "[[client]]\n[[client.more]]\n",
            "[node]\n[[client]]\n[node]\n",
            "\u{feff}[[client]]\n",
        ] {
            let whole = Pieces { mixed: std::iter::once(0..text.len()).collect(), clients: Vec::new() };
            assert_eq!(cut(text, &SCHEMAS), whole, "{text:?}");
        }
    }
}
