//! What somebody who mistyped a name may have meant.

/// The known name with the fewest single-letter changes to `typed`, if a third of it or more is right.
pub(crate) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let changes = known.map(|name| (changes(typed, name), name));
    let (count, name) = changes.min()?;
    (3 * count <= 2 * typed.chars().count().max(1)).then_some(name)
}

/// Letters put in, taken out, or replaced by others, at least: Levenshtein's distance, row by row.
fn changes(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, have) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, want) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(have != *want);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        for (from, to, count) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("timout", "timeout", 1), ("a", "a", 0)]
        {
            assert_eq!(changes(from, to), count, "{from} {to}");
            assert_eq!(changes(to, from), count, "{to} {from}");
        }
    }

    #[test]
    fn far_is_not_near() {
        let known = ["timeout", "addr", "json"];
        assert_eq!(nearest("tiemout", known.into_iter()), Some("timeout"));
        assert_eq!(nearest("address", known.into_iter()), Some("addr"));
        assert_eq!(nearest("xyzzy", known.into_iter()), None);
        assert_eq!(nearest("a", std::iter::empty()), None);
    }
}
