//! A JSON pointer (RFC 6901), as settings and the rows of vendors name a value of a body.

use std::fmt;

use crate::model::Flaw;

/// Leads to a text, number or boolean. A segment `*` is every element of a list; all of them must then have the same value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// Every segment costs a step for each key beside it.
const POINTER_BYTES_MAX: usize = 256;

impl Pointer {
    /// Of a text that is known to be one.
    pub fn of(text: &str) -> Self {
        let segments = text.strip_prefix('/').unwrap_or(text).split('/');
        Self(
            segments
                .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
                .collect(),
        )
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let escapes = text.matches("~0").count() + text.matches("~1").count();
        let is_one = text.starts_with('/') && escapes == text.matches('~').count();
        if is_one && text.len() <= POINTER_BYTES_MAX {
            return Ok(Self::of(text));
        }
        let hint =
            format!("write for example /event/id, in at most {POINTER_BYTES_MAX} bytes; ~ in a key is ~0");
        Err(Flaw::new("this is not a JSON pointer").hint(hint))
    }

    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|segment| write!(f, "/{}", segment.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::Pointer;

    #[test]
    fn a_pointer_is_read_as_it_is_written() {
        for (text, segments) in [
            ("/event/0/id", &["event", "0", "id"][..]),
            ("/a~1b/c~01/*", &["a/b", "c~1", "*"]),
            ("/", &[""]),
        ] {
            let pointer = Pointer::parse(text).unwrap();
            assert_eq!(pointer.segments(), segments);
            assert_eq!(pointer.to_string(), text);
        }
        let long = format!("/{}", "a".repeat(256));
        for bad in ["", "id", "/a~2", "/a~", &long] {
            assert!(Pointer::parse(bad).is_err(), "{bad}");
        }
    }
}
