//! Hints for mistyped words.

/// Words a hint lists at most.
const LISTED: usize = 24;

/// What to write in place of a word that is not known: the nearest known one if there is one near, else all of them.
/// Begins with a semicolon, to be put behind the complaint.
pub(super) fn suggestion<'a>(given: &str, known: impl Iterator<Item = &'a str>, quote: char) -> String {
    let known: Vec<&str> = known.collect();
    if let Some(near) = nearest(given, &known) {
        return format!("; did you mean {quote}{near}{quote}?");
    }
    let listed: Vec<String> = known.iter().take(LISTED).map(|word| format!("{quote}{word}{quote}")).collect();
    let more = match known.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    if known.is_empty() { String::new() } else { format!("; known: {}{more}", listed.join(", ")) }
}

/// The known word that differs least, if it differs by a third of its letters or less or is an abbreviation.
fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let given = given.to_lowercase();
    let abbreviates = |word: &str| given.len() >= 3 && (word.starts_with(&given) || given.starts_with(word));
    let distance = |word: &str| strsim::osa_distance(&given, &word.to_lowercase());
    let near = known.iter().filter(|word| distance(word) <= (given.chars().count() / 3).max(1) || abbreviates(word));
    near.min_by_key(|word| distance(word)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_named_and_far_ones_listed() {
        let known = ["passphrase", "passphrase_file", "prefixes", "mux"];
        let hint = |given| suggestion(given, known.into_iter(), '`');
        assert_eq!(hint("pasphrase"), "; did you mean `passphrase`?");
        assert_eq!(hint("passphrase-file"), "; did you mean `passphrase_file`?");
        assert_eq!(hint("prefix"), "; did you mean `prefixes`?");
        assert_eq!(hint("MUX"), "; did you mean `mux`?");
        assert_eq!(hint("colour"), "; known: `passphrase`, `passphrase_file`, `prefixes`, `mux`");
    }
}
