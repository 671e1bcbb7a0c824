//! What a signature covers: pieces of the request and fixed text, in the order in which they were signed.

use std::fmt;

use crate::model::signature::place::Place;
use crate::model::{Flaw, Pointer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// The body as received.
    Body,
    /// The timestamp as received, not as read.
    Timestamp,
    Id,
    /// The public URL to which the request was sent, with its query.
    Url,
    /// The same URL after the percent-decoding of `HubSpot`, which leaves most characters encoded.
    UrlDecoded,
    Method,
    /// A value of the request that is covered in addition.
    At(Place),
    /// The CRC-32 of the body as a decimal number (`PayPal`).
    BodyCrc,
    /// The text of the secret: an id that both sides know (`PayPal`).
    Secret,
}

/// The pieces of a signed text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template(pub Vec<Piece>);

/// Pieces of one template. Each costs a step for every request.
const PIECES_MAX: usize = 32;
const TEMPLATE_BYTES_MAX: usize = 1024;

impl Template {
    /// Reads a template such as `{timestamp}.{body}`. A brace that is meant as text is doubled.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        if text.is_empty() || text.len() > TEMPLATE_BYTES_MAX {
            return Err(
                Flaw::new(format!("a template has 1 to {TEMPLATE_BYTES_MAX} bytes"))
                    .hint("write for example \"{timestamp}.{body}\""),
            );
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("{{").or_else(|| rest.strip_prefix("}}")) {
                push_text(&mut pieces, first);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after
                    .split_once('}')
                    .ok_or_else(|| Flaw::new("a brace is not closed").hint("write {{ for a brace itself"))?;
                pieces.push(piece(name)?);
                rest = after;
            } else if first == '}' {
                return Err(Flaw::new("a brace is not opened").hint("write }} for a brace itself"));
            } else {
                push_text(&mut pieces, first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        if pieces.len() > PIECES_MAX {
            return Err(Flaw::new(format!("a template has at most {PIECES_MAX} pieces")));
        }
        Ok(Self(pieces))
    }

    /// The parts of the body that are covered as values.
    pub fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::At(place) => place.pointer(),
            _ => None,
        })
    }
}

fn push_text(pieces: &mut Vec<Piece>, next: char) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.push(next),
        _ => pieces.push(Piece::Text(next.to_string())),
    }
}

/// Pieces that have a name alone.
const NAMED: [(&str, Piece); 8] = [
    ("body", Piece::Body),
    ("timestamp", Piece::Timestamp),
    ("id", Piece::Id),
    ("url", Piece::Url),
    ("url-decoded", Piece::UrlDecoded),
    ("method", Piece::Method),
    ("body-crc32", Piece::BodyCrc),
    ("secret", Piece::Secret),
];

fn piece(name: &str) -> Result<Piece, Flaw> {
    let mut named = NAMED.into_iter();
    if let Some((_, piece)) = named.find(|(known, _)| *known == name) {
        return Ok(piece);
    }
    if name.contains(':') {
        return Place::parse(name).map(Piece::At);
    }
    let known = NAMED.map(|(name, _)| format!("{{{name}}}")).join(", ");
    Err(Flaw::new("unknown piece of a template").hint(format!(
        "known are {known}, {{header:NAME}}, {{query:NAME}} and {{body:/POINTER}}"
    )))
}

/// As it is written in the settings.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Piece::At(place) => write!(f, "{{{place}}}"),
            _ => {
                let mut named = NAMED.iter();
                let name = named.find(|(_, known)| known == piece);
                write!(f, "{{{}}}", name.map_or("", |(name, _)| name))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::proptest;

    use super::{Piece, Template};
    use crate::model::signature::Place;

    #[test]
    fn a_template_is_read_in_pieces() {
        let template = Template::parse("v0:{timestamp}:{{{body}}}{header:x-a}{body:/b/c}é").unwrap();
        let expected = [
            Piece::Text("v0:".into()),
            Piece::Timestamp,
            Piece::Text(":{".into()),
            Piece::Body,
            Piece::Text("}".into()),
            Piece::At(Place::header("x-a")),
            Piece::At(Place::body("/b/c")),
            Piece::Text("é".into()),
        ];
        assert_eq!(template.0, expected);
        assert_eq!(
            template.to_string(),
            "v0:{timestamp}:{{{body}}}{header:x-a}{body:/b/c}é"
        );
    }

    #[test]
    fn a_mistake_in_a_template_is_refused() {
        let many = "{body}".repeat(33);
        let long = "a".repeat(1025);
        for bad in [
            "",
            "{",
            "}",
            "{body",
            "body}",
            "{bodies}",
            "{header:a b}",
            "{}",
            &many,
            &long,
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}a:/é]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }
    }
}
