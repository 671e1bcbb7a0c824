//! Locates a missing closing bracket. The TOML parser notices an unterminated list only at the next setting, often many
//! lines further down, and treats everything in between as part of the list.

/// The place of a `[` or `{` of a value that is not closed before the next setting or table begins.
pub(super) fn unclosed(text: &str) -> Option<usize> {
    let mut open: Vec<(char, usize)> = Vec::new();
    let mut last = '\n';
    let mut at = 0;
    let mut is_line_start = true;
    while let Some(found) = text.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = text.get(at..).unwrap_or("");
        if is_line_start && !matches!(found, ' ' | '\t' | '\r' | '\n') {
            is_line_start = false;
            let line = rest.lines().next().unwrap_or("");
            match open.last() {
                None if found == '[' => {
                    // The header of a table is the reader's own to judge.
                    at += line.len();
                    continue;
                }
                Some((bracket, place)) => {
                    let is_next =
                        is_header(line) || (is_assignment(line) && (*bracket == '[' || !"{,".contains(last)));
                    if is_next {
                        return Some(*place);
                    }
                }
                None => {}
            }
        }
        match found {
            '\n' => is_line_start = true,
            '#' => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '"' | '\'' => {
                at += string(rest, found);
                last = found;
                continue;
            }
            '[' | '{' => open.push((found, at)),
            ']' | '}' => {
                if let Some((bracket, place)) = open.pop()
                    && (bracket == '[') != (found == ']')
                {
                    return Some(place);
                }
            }
            _ => {}
        }
        if !found.is_whitespace() {
            last = found;
        }
        at += found.len_utf8();
    }
    open.last().map(|(_, place)| *place)
}

/// Bytes of the string at the start of this text; one of a single line ends with its line at the latest.
fn string(text: &str, quote: char) -> usize {
    let triple = if quote == '"' { "\"\"\"" } else { "'''" };
    if let Some(inner) = text.strip_prefix(triple) {
        let mut from = 0;
        while let Some(end) = inner.get(from..).and_then(|rest| rest.find(triple)) {
            let before = inner.get(..from + end).unwrap_or("");
            let escapes = before.len() - before.trim_end_matches('\\').len();
            if quote == '\'' || escapes % 2 == 0 {
                return 3 + from + end + 3;
            }
            from += end + 1;
        }
        return text.len();
    }
    let mut is_escaped = false;
    for (at, found) in text.char_indices().skip(1) {
        if found == '\n' {
            return at;
        }
        if found == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = found == '\\' && quote == '"' && !is_escaped;
    }
    text.len()
}

fn is_name(text: &str) -> bool {
    let plain = |found: char| found.is_ascii_alphanumeric() || "_-. ".contains(found);
    text.starts_with(|found: char| found.is_ascii_alphabetic() || found == '_') && text.chars().all(plain)
}

/// Whether a line is the header of a table and not a list within a list.
fn is_header(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or(line).trim();
    let name = line.trim_start_matches('[').trim_end_matches(']');
    let is_value = matches!(name, "true" | "false" | "inf" | "nan");
    line.starts_with('[') && line.ends_with(']') && is_name(name) && !is_value
}

fn is_assignment(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| is_name(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::unclosed;

    #[test]
    fn the_bracket_that_was_forgotten_is_found() {
        for (text, place) in [
            ("a = [\"b\"\nc = 1\n", Some(4)),
            ("a = [\n  \"b\",\n  \"c\"\n\n[[route]]\nd = [1]\n", Some(4)),
            ("a = { b = 1, c = 2\nd = [3]\n", Some(4)),
            ("a = [\"]\" # ]\n[log]\n", Some(4)),
            ("a = [[1]\nb = 2\n", Some(4)),
            ("a = [1", Some(4)),
            ("a = { b = [1 }\n", Some(10)),
            ("a = [\"b\"]\n[[c]]\nd = { e = [1, 2] }\n", None),
            (
                "a = [\n  [1],\n  [true],\n  { b = 1 },\n]\nc = {\n  d = 1,\n  e = 2\n}\n",
                None,
            ),
            (
                "a = \"[\"\nb = '{'\nc = \"\"\"\n[\n\\\"\"\"\n\"\"\"\nd = '''{'''\n# [\n",
                None,
            ),
            ("[a\nb = 1\n", None),
            ("a = \"b\\\"[\"\nc = ]\n", None),
        ] {
            assert_eq!(unclosed(text), place, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[\\[\\]{}\"'=#a\\\\ü\n ,]{0,60}") {
            let place = unclosed(&text);
            let is_bracket = place.is_none_or(|place| text[place..].starts_with(['[', '{']));
            prop_assert!(is_bracket, "{:?}", place);
        }

        #[test]
        fn any_text_at_all_is_read_to_its_end(text in any::<String>()) {
            let _ = unclosed(&text);
        }
    }
}
