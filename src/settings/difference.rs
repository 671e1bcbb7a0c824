//! What differs between two settings files, in words. Secrets are not in them: an address of a trigger is shown without its
//! query, a digest of a key not at all.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// Lines that are shown; of more only the number is reported.
const SHOWN_MAX: usize = 200;
/// Characters of a value that are shown.
const VALUE_CHARS_MAX: usize = 200;
/// What names a table among others of its kind.
const NAMES: [&str; 3] = ["name", "label", "address"];

/// The differences between two settings files.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    lines: Vec<String>,
}

impl Difference {
    /// Compares the texts of two files, which have been checked.
    pub fn between(earlier: &str, later: &str) -> Self {
        let (earlier, later) = (flat(earlier), flat(later));
        let mut lines = Vec::new();
        for (key, value) in &earlier {
            match later.get(key) {
                Some(new) if new == value => {}
                Some(Value::Array(new)) if value.is_array() => {
                    let earlier = value.as_array().map(Vec::as_slice).unwrap_or_default();
                    for (sign, these, those) in
                        [("removed", earlier, new.as_slice()), ("added", new, earlier)]
                    {
                        let only = these.iter().filter(|value| !those.contains(value));
                        lines.extend(only.map(|value| format!("{key}: {value} {sign}")));
                    }
                }
                Some(new) => lines.push(format!("{key}: {} -> {}", shown(key, value), shown(key, new))),
                None => lines.push(format!("{key} removed, was {}", shown(key, value))),
            }
        }
        for (key, value) in later.iter().filter(|(key, _)| !earlier.contains_key(*key)) {
            lines.push(format!("{key} added: {}", shown(key, value)));
        }
        lines.sort();
        Self { lines }
    }

    /// Adds lines about what is in other files; they come first.
    pub fn add(&mut self, lines: impl IntoIterator<Item = String>) {
        self.lines.splice(0..0, lines);
    }

    /// A line for each difference, and one about those that are left out.
    pub fn lines(mut self) -> Vec<String> {
        let more = self.lines.len().saturating_sub(SHOWN_MAX);
        if more > 0 {
            self.lines.truncate(SHOWN_MAX);
            self.lines.push(format!("and {more} more"));
        }
        self.lines
    }
}

/// Every value under the path of its tables: `route orders.rate.burst`.
fn flat(text: &str) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    if let Ok(table) = text.parse::<Table>() {
        add(&mut all, "", &table);
    }
    all
}

fn add(all: &mut BTreeMap<String, Value>, path: &str, table: &Table) {
    for (key, value) in table {
        let at = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        match value {
            Value::Table(inner) => add(all, &at, inner),
            Value::Array(list) if list.iter().any(Value::is_table) => {
                for (number, inner) in (1..).zip(list.iter().filter_map(Value::as_table)) {
                    let name = NAMES.iter().find_map(|name| inner.get(*name)?.as_str());
                    let name = name.map_or_else(|| number.to_string(), str::to_owned);
                    add(all, &format!("{at} {name}"), inner);
                }
            }
            value => {
                all.insert(at, value.clone());
            }
        }
    }
}

fn shown(key: &str, value: &Value) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    let text = match (last, value) {
        ("digest", _) => "***".to_owned(),
        ("trigger" | "upstream", Value::String(text)) => match text.split_once('?') {
            Some((address, _)) => format!("\"{address}?***\""),
            None => value.to_string(),
        },
        _ => value.to_string(),
    };
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::Difference;

    const EARLIER: &str = "[connections]\nmax = 10\n[[caller]]\nname = \"shop\"\n[[caller.key]]\nlabel = \"a\"\n\
                           digest = \"sha256:canary1\"\n[[route]]\nname = \"orders\"\ncallers = [\"shop\"]\n\
                           trigger = \"https://a.example/x?sig=canary2\"\n";

    #[test]
    fn what_changed_is_named_and_no_secret_is_shown() {
        let later = EARLIER
            .replace("max = 10", "max = 20")
            .replace("canary1", "canary3")
            .replace("a.example/x?sig=canary2", "b.example/x?sig=canary4")
            + "rate = { requests = 5, per = \"1s\" }\n[[route]]\nname = \"returns\"\npath = \"/r\"\n";
        let difference = Difference::between(EARLIER, &later);
        assert_eq!(
            difference.lines(),
            [
                "caller shop.key a.digest: *** -> ***",
                "connections.max: 10 -> 20",
                "route orders.rate.per added: \"1s\"",
                "route orders.rate.requests added: 5",
                "route orders.trigger: \"https://a.example/x?***\" -> \"https://b.example/x?***\"",
                "route returns.name added: \"returns\"",
                "route returns.path added: \"/r\"",
            ]
        );
        assert_eq!(Difference::between(&later, &later), Difference::default());
        let list = |networks: &[&str]| format!("networks = {networks:?}");
        let lines =
            |earlier: &[&str], later: &[&str]| Difference::between(&list(earlier), &list(later)).lines();
        let long = vec!["192.0.2.0/24"; 1_000];
        assert_eq!(
            lines(&long, &[&long[..], &["0.0.0.0/0"]].concat()),
            ["networks: \"0.0.0.0/0\" added"]
        );
        let all: Vec<_> = (0..1_000).map(|number| number.to_string()).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let many = lines(&[], &all);
        assert_eq!((many.len(), many[200].as_str()), (201, "and 800 more"));
        let line = &Difference::between("", &list(&long)).lines()[0].clone();
        assert!(line.len() < 300 && line.ends_with("..."), "{line}");
    }
}
