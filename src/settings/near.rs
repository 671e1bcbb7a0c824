//! The guess which word was meant by one that is not known.

/// The known word that a wrong one was probably meant to be.
pub(super) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong; with more, a guess is noise.
    let most = (word.chars().count() / 3).max(1);
    let near = known
        .map(|other| (distance(word, other), other))
        .filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other (optimal
/// string alignment).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=to.len()).collect();
    let mut last = None;
    for (row, letter) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        let mut left_letter = None;
        for (column, other) in to.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let mut best = at(&above, column) + usize::from(letter != *other);
            best = best.min(at(&above, column + 1) + 1).min(at(&current, column) + 1);
            if last == Some(*other) && left_letter == Some(letter) && column > 0 {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
            left_letter = Some(*other);
        }
        before = std::mem::replace(&mut above, current);
        last = Some(letter);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{closest, distance};

    #[test]
    fn distance_counts_slips_of_the_finger() {
        for (from, to, slips) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("adress", "address", 1),
            ("hots", "host", 1),
            ("kitten", "sitting", 3),
            ("ü", "u", 1),
        ] {
            assert_eq!(distance(from, to), slips, "{from} {to}");
        }
    }

    #[test]
    fn only_a_near_word_is_guessed() {
        let known = ["address", "http2", "health_path"];
        assert_eq!(closest("adress", known.into_iter()), Some("address"));
        assert_eq!(closest("health-path", known.into_iter()), Some("health_path"));
        assert_eq!(closest("colour", known.into_iter()), None);
    }
}
