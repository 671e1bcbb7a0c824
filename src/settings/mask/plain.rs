//! Texts that give nothing away: plain words, short numbers, dates, addresses of networks.

use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

/// Longest run of letters that passes for a word.
const LETTERS_MAX: usize = 20;
/// Most digits that pass for a number: a port, a year, a count.
const DIGITS_MAX: usize = 6;
/// Runs of letters and digits up to this length give nothing away.
const SHORT_RUN: usize = 4;

/// Whether a text is made of plain words, as names, paths and hosts are, and not of random letters and digits.
pub(in crate::settings) fn is_plain(text: &str) -> bool {
    let is_usual = |found: char| found.is_alphanumeric() || " /{}*._:-[],()#".contains(found);
    // Words have one separator between them.
    let is_doubled = ["--", "__", "-_", "_-", "-/", "/-", "_/", "/_"]
        .iter()
        .any(|pair| text.contains(pair));
    let all = || runs(text).filter_map(|range| text.get(range));
    // One that is neither word nor number may be an abbreviation; several are a key with separators in it.
    let unusual = all().filter(|run| !is_word(run)).count();
    text.chars().all(is_usual) && !is_doubled && unusual <= 1 && all().all(is_plain_run)
}

/// A word, a number, a word with a number behind it, or so short that it gives nothing away.
pub(super) fn is_plain_run(run: &str) -> bool {
    is_word(run) || (run.chars().count() <= SHORT_RUN && !has_inner_digit(run))
}

/// A word, a number, or a word with a number behind it.
fn is_word(run: &str) -> bool {
    let word = run.trim_end_matches(|found: char| found.is_ascii_digit());
    let digits = run.len() - word.len();
    if word.is_empty() {
        return digits <= DIGITS_MAX;
    }
    let tail = word.chars().next().map_or(0, char::len_utf8);
    let tail = word.get(tail..).unwrap_or("");
    let is_lower = |found: char| found.is_alphabetic() && !found.is_uppercase();
    let is_one_case = tail.chars().all(is_lower) || word.chars().all(char::is_uppercase);
    let starts_well = word.starts_with(char::is_alphabetic);
    is_one_case && starts_well && word.chars().count() <= LETTERS_MAX && digits <= SHORT_RUN
}

/// Whether digits and letters change more than once, as in random text.
fn has_inner_digit(run: &str) -> bool {
    let is_digit = |found: char| found.is_ascii_digit();
    let inner = run.trim_matches(is_digit);
    let is_within = run.starts_with(is_digit) && run.ends_with(is_digit) && !inner.is_empty();
    is_within || inner.contains(is_digit)
}

/// The longest stretches of letters and digits.
pub(super) fn runs(text: &str) -> impl Iterator<Item = Range<usize>> {
    let is_other = |found: char| !found.is_alphanumeric();
    let mut from = 0;
    text.split_inclusive(is_other).filter_map(move |piece| {
        let start = from;
        from += piece.len();
        let length = piece.trim_end_matches(is_other).len();
        (length > 0).then_some(start..start + length)
    })
}

/// `env:NAME` with a name of plain words.
pub(super) fn is_plain_variable(word: &str) -> bool {
    word.strip_prefix("env:")
        .is_some_and(|name| is_variable(name) && is_plain(name))
}

/// A switch, a short number with or without a unit, a date, or an address of a network.
pub(super) fn is_short_value(text: &str) -> bool {
    if matches!(text, "true" | "false") {
        return true;
    }
    // An address of IPv6 may begin with a letter.
    if !text.starts_with(|found: char| found.is_ascii_digit() || "+-".contains(found)) && !text.contains("::")
    {
        return false;
    }
    if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        return true;
    }
    let is_date = text.len() <= "2027-01-31T12:00:00.000+00:00".len()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"-:.+TZ".contains(&byte))
        && text.get(..10).is_some_and(is_day);
    let number = text.trim_start_matches(['+', '-']);
    let parts = number.split(['.', '_']);
    is_date || (number.len() <= 2 * SHORT_RUN && parts.into_iter().all(is_amount))
}

/// Digits, perhaps with a unit behind them.
fn is_amount(text: &str) -> bool {
    let unit = text.trim_start_matches(|found: char| found.is_ascii_digit());
    let digits = text.len() - unit.len();
    let units = [
        "", "ms", "s", "m", "h", "d", "B", "KB", "MB", "GB", "KiB", "MiB", "GiB",
    ];
    (1..=SHORT_RUN).contains(&digits) && units.contains(&unit)
}

/// Whether this text can be the name of an environment variable.
pub(in crate::settings) fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && name.len() <= 128 && name.bytes().all(plain)
}

/// Whether this is a day as digits with hyphens between them.
fn is_day(text: &str) -> bool {
    let groups = || text.split('-').map(str::as_bytes);
    groups().map(<[u8]>::len).eq([4, 2, 2]) && groups().flatten().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn a_key_with_separators_is_no_name() {
        for name in ["orders-v2", "IPv6-only", "/hooks/{id}/2nd", "HMC", "erp_1"] {
            assert!(is_plain(name), "{name}");
        }
        for key in ["HMCj-5go-R", "aB1/2cD", "Wtj-7Xq-3oD9"] {
            assert!(!is_plain(key), "{key}");
        }
    }
}
