//! Text in aligned columns, and numbers as people read them.

/// Where the text of a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows of as many cells as there are columns.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The heading and the rows, each ending in a line break; two spaces between columns, none at the end.
    pub(super) fn text(&self) -> String {
        let mut widths: Vec<_> = self.columns.iter().map(|(name, _)| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, &width), (_, align)) in cells.zip(&widths).zip(&self.columns) {
                line.push_str(&match align {
                    Align::Left => format!("{cell:<width$}  "),
                    Align::Right => format!("{cell:>width$}  "),
                });
            }
            line.truncate(line.trim_end().len());
            line + "\n"
        };
        let mut text = line(&mut self.columns.iter().map(|(name, _)| *name));
        for row in &self.rows {
            text += &line(&mut row.iter().map(String::as_str));
        }
        text
    }
}

/// Thousands apart: `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With an SI prefix: `999 B`, `1.2 kB`, `3.4 Mbit/s`.
pub(super) fn si(number: u64, unit: &str) -> String {
    if number < 1000 {
        return format!("{number} {unit}");
    }
    let mut scaled = number as f64;
    let mut prefix = ' ';
    for next in ['k', 'M', 'G', 'T', 'P', 'E'] {
        scaled /= 1000.0;
        prefix = next;
        // Else it would be rounded to 1000.0.
        if scaled < 999.95 {
            break;
        }
    }
    format!("{scaled:.1} {prefix}{unit}")
}

/// The two largest units of a time in seconds: `1.2 s`, `42 s`, `3 min 12 s`, `1 h 2 min`, `3 d 4 h`.
pub(super) fn time(seconds: f64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    // Saturates, also for what is not a number.
    let whole = seconds.round() as u64;
    match whole {
        0..MINUTE => format!("{whole} s"),
        MINUTE..HOUR => format!("{} min {} s", whole / MINUTE, whole % MINUTE),
        HOUR..DAY => format!("{} h {} min", whole / HOUR, whole % HOUR / MINUTE),
        _ => format!("{} d {} h", whole / DAY, whole % DAY / HOUR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 1234567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(thousands(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(
            [999, 1000, 1250, 999_949, 999_950, 12_345_678].map(|n| si(n, "B")),
            ["999 B", "1.0 kB", "1.2 kB", "999.9 kB", "1.0 MB", "12.3 MB"]
        );
        assert_eq!(si(u64::MAX, "B"), "18.4 EB");
    }

    #[test]
    fn times_read_well() {
        assert_eq!(
            [0.04, 9.94, 9.95, 59.4, 59.6, 192.0, 3720.0, 273_600.0].map(time),
            ["0.0 s", "9.9 s", "10 s", "59 s", "1 min 0 s", "3 min 12 s", "1 h 2 min", "3 d 4 h"]
        );
    }

    #[test]
    fn columns_are_aligned_also_with_characters_of_several_octets() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("NOTE", Align::Left)]);
        table.add(vec!["zoë-client".into(), "1".into(), "-".into()]);
        table.add(vec!["bob".into(), "12".into(), String::new()]);
        assert_eq!(table.text(), "NAME         N  NOTE\nzoë-client   1  -\nbob         12\n");
    }
}
