//! Suggests a known word for an unknown one.

use strsim::osa_distance;

/// The known word that a wrong one was probably meant to be.
pub(super) fn closest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong; with more, a guess is noise.
    let most = (word.chars().count() / 3).max(1);
    let near = known
        .map(|other| (osa_distance(word, other), other))
        .filter(|(distance, _)| *distance <= most);
    near.min_by_key(|(distance, _)| *distance).map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn only_a_near_word_is_guessed() {
        let known = ["address", "http2", "health_path"];
        assert_eq!(closest("adress", known.into_iter()), Some("address"));
        assert_eq!(closest("adderss", known.into_iter()), Some("address"));
        assert_eq!(closest("health-path", known.into_iter()), Some("health_path"));
        assert_eq!(closest("colour", known.into_iter()), None);
    }
}
