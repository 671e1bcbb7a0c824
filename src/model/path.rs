//! Paths as settings name them: templates of routes and of what an API may be asked for, and single paths. Paths of
//! requests are judged in `policy/path.rs`.

use crate::model::Flaw;

/// Longest path template; with its parameters filled in it must still fit in a request head.
const PATH_BYTES_MAX: usize = 2048;

/// A path template in matchit's form: `/orders/{id}`, `/files/{*rest}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathTemplate {
    text: Box<str>,
    end: PathEnd,
}

/// A path without parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FixedPath(Box<str>);

/// Whether a path ends in `{*rest}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathEnd {
    Fixed,
    Open,
}

impl PathTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let end = check_template(text)?;
        Ok(Self {
            text: text.into(),
            end,
        })
    }

    pub fn end(&self) -> PathEnd {
        self.end
    }
}

impl FixedPath {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        check_fixed(text).map(|()| Self(text.into()))
    }
}

shown_as!(PathTemplate.text: str);
shown_as!(FixedPath.0: str);

fn check_template(text: &str) -> Result<PathEnd, Flaw> {
    check_frame(text)?;
    let mut names = Vec::new();
    let mut end = PathEnd::Fixed;
    let mut segments = text.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match check_segment(segment)? {
            Segment::Plain => {}
            Segment::Parameter(name) if names.contains(&name) => {
                return Err(Flaw::new(format!(
                    "the parameter {{{name}}} is in the path twice"
                )));
            }
            Segment::Parameter(name) => names.push(name),
            Segment::Rest if segments.peek().is_some() => {
                return Err(Flaw::new(
                    "{*...} takes the whole rest of a path, so it must be the last segment",
                ));
            }
            Segment::Rest => end = PathEnd::Open,
        }
    }
    Ok(end)
}

fn check_fixed(text: &str) -> Result<(), Flaw> {
    check_frame(text)?;
    if text.contains(['{', '}']) {
        return Err(Flaw::new("this path cannot have parameters"));
    }
    text.split('/')
        .skip(1)
        .try_for_each(|segment| check_segment(segment).map(|_| ()))
}

fn check_frame(text: &str) -> Result<(), Flaw> {
    if text.contains(['?', '#']) {
        return Err(Flaw::new("a path ends before `?` and `#`")
            .hint("query parameters to pass on belong into `query`"));
    }
    if !text.starts_with('/') {
        let flaw = Flaw::new("a path starts with a slash");
        return Err(match text.split_once("://") {
            Some(_) => flaw.hint("the host belongs into `host`"),
            None => flaw.hint(format!("write \"/{text}\"")),
        });
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(Flaw::new(format!(
            "the path is longer than {PATH_BYTES_MAX} bytes"
        )));
    }
    if text.contains('%') {
        return Err(Flaw::new("a path is not percent-encoded here")
            .hint("use a parameter such as {name} in its place"));
    }
    if text.contains("//") {
        return Err(Flaw::new("the path has a doubled slash"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Flaw::new("the path has a dot segment"));
    }
    Ok(())
}

enum Segment<'a> {
    Plain,
    Parameter(&'a str),
    Rest,
}

fn check_segment(segment: &str) -> Result<Segment<'_>, Flaw> {
    if let Some(name) = segment.strip_prefix(':') {
        // The form of other routers would silently become plain text here.
        let flaw = Flaw::new("a path segment cannot begin with a colon");
        return Err(if is_parameter(name) {
            flaw.hint(format!("write {{{name}}} for a parameter"))
        } else {
            flaw.hint("write {name} for a parameter")
        });
    }
    let Some((before, rest)) = segment.split_once('{') else {
        check_letters(segment)?;
        return Ok(Segment::Plain);
    };
    let Some((inside, after)) = rest.split_once('}') else {
        return Err(Flaw::new("an opening brace in the path has no closing one"));
    };
    if after.contains('{') {
        return Err(Flaw::new("a path segment has at most one parameter"));
    }
    check_letters(before)?;
    check_letters(after)?;
    let (name, is_rest) = inside
        .strip_prefix('*')
        .map_or((inside, false), |name| (name, true));
    if !is_parameter(name) {
        return Err(
            Flaw::new("a path parameter has a name of letters, digits and `_`")
                .hint("write for example {id}"),
        );
    }
    if is_rest && !(before.is_empty() && after.is_empty()) {
        return Err(Flaw::new("{*...} must be a whole segment"));
    }
    Ok(if is_rest {
        Segment::Rest
    } else {
        Segment::Parameter(name)
    })
}

fn is_parameter(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What RFC 3986 section 3.3 allows in a segment without encoding, less the star.
fn check_letters(text: &str) -> Result<(), Flaw> {
    let allowed = |letter: &char| letter.is_ascii_alphanumeric() || "-._~!$&'()+,;=:@".contains(*letter);
    match text.chars().find(|letter| !allowed(letter)) {
        None => Ok(()),
        Some('*') => {
            Err(Flaw::new("a star has no meaning by itself").hint("write {*rest} for the rest of a path"))
        }
        Some('}') => Err(Flaw::new("a closing brace in the path has no opening one")),
        Some(letter) => Err(Flaw::new(format!(
            "the path contains {letter:?}, which a path cannot hold unencoded"
        ))
        .hint("use a parameter such as {name} in its place")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FixedPath, PathEnd, PathTemplate};

    #[test]
    fn a_template_has_plain_segments_and_parameters() {
        for (good, end) in [
            ("/", PathEnd::Fixed),
            ("/orders", PathEnd::Fixed),
            ("/orders/", PathEnd::Fixed),
            ("/orders/{id}", PathEnd::Fixed),
            ("/orders/{id}.json", PathEnd::Fixed),
            ("/v1/img-{n}/{id}", PathEnd::Fixed),
            ("/a:b@c~d!$&'()+,;=", PathEnd::Fixed),
            ("/files/{*rest}", PathEnd::Open),
        ] {
            assert_eq!(PathTemplate::parse(good).unwrap().end(), end, "{good}");
            matchit::Router::new().insert(good, ()).unwrap();
        }
        for bad in [
            "",
            "orders",
            "https://a.example/x",
            "/a//b",
            "//",
            "/./a",
            "/a/..",
            "/a%20b",
            "/a?b",
            "/a#b",
            "/a b",
            "/ü",
            "/{",
            "/}",
            "/{}",
            "/{*}",
            "/{{a}}",
            "/{a}{b}",
            "/{a}-{b}",
            "/{a}/{a}",
            "/{*rest}/a",
            "/a{*rest}",
            "/*",
            "/*rest",
            "/:id",
            "/{i d}",
            "/\\",
            "/a\"b",
        ] {
            assert!(PathTemplate::parse(bad).is_err(), "{bad}");
        }
        assert!(FixedPath::parse("/-/health").is_ok());
        assert!(FixedPath::parse("/{id}").is_err());
    }

    proptest! {
        #[test]
        fn a_template_we_accept_is_one_the_router_accepts(text in "/[a-c{}*/._:~-]{0,12}") {
            if PathTemplate::parse(&text).is_ok() {
                prop_assert!(matchit::Router::new().insert(text, ()).is_ok());
            }
        }
    }
}
