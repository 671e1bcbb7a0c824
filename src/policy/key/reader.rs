//! Finds the key in the head of a request: in the places the route reads, and nowhere else. Whose key it
//! is, and whether it still holds, is decided in `table.rs`.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::policy::key::form::KEY_BYTES_MAX;
use crate::problem::{Kind, Problem};
use crate::settings::KeyPlace;

/// Longest Basic credentials that are decoded: a longest key and as long a user name, in base64.
const BASIC_BYTES_MAX: usize = (2 * KEY_BYTES_MAX + 1).div_ceil(3) * 4;

// Callers that write RFC 7617 by hand often leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Debug, Clone)]
pub struct KeyReader {
    headers: Box<[HeaderName]>,
    authorization: AuthorizationUse,
    parameters: Box<[String]>,
    in_path: bool,
}

/// The key of a request, and whether its URL has it.
pub struct Presented<'h> {
    pub candidate: Candidate<'h>,
    pub is_in_url: bool,
}

/// What `Authorization` means on a route. Without either it is ignored.
#[derive(Debug, Clone, Copy, Default)]
struct AuthorizationUse {
    /// The key follows the scheme, whatever that is; but Basic, where that has its own use.
    behind_scheme: bool,
    /// Basic has the key as its password.
    in_basic: bool,
}

pub enum Candidate<'h> {
    Plain(&'h [u8]),
    /// Decoded from Basic credentials or a query; wiped when dropped.
    Password(Zeroizing<Vec<u8>>),
    /// Basic credentials that cannot be decoded, or are far too long: no caller has such a key.
    Unreadable,
}

impl Candidate<'_> {
    /// The key; empty when it is unreadable.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Password(bytes) => bytes,
            Self::Unreadable => &[],
        }
    }

    fn same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unreadable, _) | (_, Self::Unreadable) => false,
            _ => verify_slices_are_equal(self.as_bytes(), other.as_bytes()).is_ok(),
        }
    }
}

impl KeyReader {
    pub fn build(places: &[KeyPlace]) -> Self {
        let mut headers = Vec::new();
        let mut authorization = AuthorizationUse::default();
        let (mut parameters, mut in_path) = (Vec::new(), false);
        for place in places {
            match place {
                KeyPlace::Header(name) => headers.push(name.clone()),
                KeyPlace::Authorization => authorization.behind_scheme = true,
                KeyPlace::Basic => authorization.in_basic = true,
                KeyPlace::Query(name) => parameters.push(name.clone()),
                KeyPlace::Path => in_path = true,
            }
        }
        Self {
            headers: headers.into_boxed_slice(),
            authorization,
            parameters: parameters.into_boxed_slice(),
            in_path,
        }
    }

    /// The header fields to take out of the request before it goes on. `Authorization` is not among them: it
    /// never goes on, whether it is read here or not.
    pub fn header_places(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Where a key is read, for people who have to put one there.
    pub fn places(&self) -> String {
        let authorization = match (self.authorization.behind_scheme, self.authorization.in_basic) {
            (false, false) => None,
            (true, false) => Some("authorization, behind any scheme"),
            (false, true) => Some("authorization, as the password of Basic"),
            (true, true) => Some("authorization, behind a scheme or as the password of Basic"),
        };
        let headers = self.headers.iter().map(|name| name.as_str().to_owned());
        let parameters = self.parameters.iter().map(|name| format!("the parameter {name}"));
        let path = self.in_path.then(|| "the path".to_owned());
        let all = headers
            .chain(authorization.map(str::to_owned))
            .chain(parameters)
            .chain(path);
        all.collect::<Vec<_>>().join(" or ")
    }

    /// The key of a request, if it shows one. An empty value is no key; the same key twice is one key.
    ///
    /// # Errors
    /// `keys-differ` when two places, or two lines of one field, have different keys.
    pub fn read<'h>(
        &self,
        headers: &'h HeaderMap,
        target: &'h str,
        path_key: Option<&'h str>,
    ) -> Result<Option<Presented<'h>>, Problem> {
        let in_url = self.read_url(target, path_key)?;
        let in_head = self.read_head(headers)?;
        let is_in_url = in_url.is_some();
        let candidate = merge(in_url, in_head)?;
        Ok(candidate.map(|candidate| Presented { candidate, is_in_url }))
    }

    fn read_url<'h>(
        &self,
        target: &'h str,
        path_key: Option<&'h str>,
    ) -> Result<Option<Candidate<'h>>, Problem> {
        // A key in the path is written as it is: nothing of it needs an encoding.
        let mut found = path_key
            .filter(|_| self.in_path)
            .and_then(|key| plain(key.as_bytes()));
        if self.parameters.is_empty() {
            return Ok(found);
        }
        let query = target.split_once('?').map_or("", |(_, query)| query);
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_ours = |known: &String| percent_decode_str(name).eq(known.bytes());
            if self.parameters.iter().any(is_ours) {
                found = merge(found, decoded(value))?;
            }
        }
        Ok(found)
    }

    fn read_head<'h>(&self, headers: &'h HeaderMap) -> Result<Option<Candidate<'h>>, Problem> {
        let mut found = None;
        for name in &self.headers {
            for value in headers.get_all(name) {
                found = merge(found, plain(value.as_bytes()))?;
            }
        }
        if self.authorization.is_read() {
            for value in headers.get_all(AUTHORIZATION) {
                found = merge(found, self.authorization.read(value.as_bytes()))?;
            }
        }
        Ok(found)
    }
}

impl AuthorizationUse {
    fn is_read(self) -> bool {
        self.behind_scheme || self.in_basic
    }

    fn read(self, value: &[u8]) -> Option<Candidate<'_>> {
        let value = value.trim_ascii();
        let Some((scheme, rest)) = split_scheme(value) else {
            // Without a space there is no scheme, so there cannot be Basic credentials either.
            return plain(value).filter(|_| self.behind_scheme);
        };
        // Schemes are compared without case (RFC 9110 section 11.1).
        if self.in_basic && scheme.eq_ignore_ascii_case(b"basic") {
            return password(rest);
        }
        plain(rest).filter(|_| self.behind_scheme)
    }
}

fn split_scheme(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = value.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
    let (scheme, rest) = value.split_at_checked(space)?;
    Some((scheme, rest.trim_ascii()))
}

/// A key of the query. A plus sign stays one: keys have it, and none has a space.
fn decoded(value: &str) -> Option<Candidate<'_>> {
    const ENCODED_BYTES_MAX: usize = 3 * KEY_BYTES_MAX;
    if value.len() > ENCODED_BYTES_MAX {
        return Some(Candidate::Unreadable);
    }
    let mut key = Zeroizing::new(Vec::with_capacity(value.len()));
    key.extend(percent_decode_str(value));
    (!key.is_empty()).then_some(Candidate::Password(key))
}

fn plain(value: &[u8]) -> Option<Candidate<'_>> {
    let value = value.trim_ascii();
    (!value.is_empty()).then_some(Candidate::Plain(value))
}

// RFC 7617 section 2: base64 of user, colon, password; the user cannot have a colon, the password can.
fn password(encoded: &[u8]) -> Option<Candidate<'static>> {
    if encoded.len() > BASIC_BYTES_MAX {
        return Some(Candidate::Unreadable);
    }
    // Room for everything at once, because a buffer that grows leaves a copy behind.
    let mut decoded = Zeroizing::new(Vec::with_capacity(encoded.len()));
    if BASE64.decode_vec(encoded, &mut decoded).is_err() {
        return Some(Candidate::Unreadable);
    }
    let Some(colon) = decoded.iter().position(|byte| *byte == b':') else {
        return Some(Candidate::Unreadable);
    };
    decoded.drain(..=colon);
    (!decoded.is_empty()).then_some(Candidate::Password(decoded))
}

fn merge<'h>(
    found: Option<Candidate<'h>>,
    next: Option<Candidate<'h>>,
) -> Result<Option<Candidate<'h>>, Problem> {
    match (found, next) {
        (Some(one), Some(other)) if !one.same_as(&other) => {
            Err(Problem::from(Kind::KeysDiffer).because("two different keys in one request"))
        }
        (Some(one), _) => Ok(Some(one)),
        (None, next) => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::any;
    use proptest::proptest;

    use super::{BASE64, BASIC_BYTES_MAX, Candidate, KeyReader};
    use crate::policy::key::form::KEY_BYTES_MAX;
    use crate::problem::Kind;
    use crate::settings::KeyPlace;

    fn headers(lines: &[(&str, &[u8])]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_bytes(value).unwrap(),
                )
            })
            .collect()
    }

    fn header(name: &str) -> KeyPlace {
        KeyPlace::Header(name.parse().unwrap())
    }

    fn read(places: &[KeyPlace], lines: &[(&str, &[u8])]) -> Result<Option<Vec<u8>>, Kind> {
        match KeyReader::build(places).read_head(&headers(lines)) {
            Ok(Some(Candidate::Unreadable)) => Ok(Some(b"(unreadable)".to_vec())),
            Ok(found) => Ok(found.map(|candidate| candidate.as_bytes().to_vec())),
            Err(problem) => Err(problem.kind()),
        }
    }

    fn key(text: &str) -> Result<Option<Vec<u8>>, Kind> {
        Ok(Some(text.as_bytes().to_vec()))
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(text))
    }

    #[test]
    fn the_places_of_a_key_are_named_in_words() {
        let places_of = |places: &[KeyPlace]| KeyReader::build(places).places();
        let key = header("x-api-key");
        assert_eq!(places_of(&[]), "");
        assert_eq!(
            places_of(&[key.clone(), KeyPlace::Authorization, header("x-other")]),
            "x-api-key or x-other or authorization, behind any scheme"
        );
        assert_eq!(
            places_of(&[KeyPlace::Basic]),
            "authorization, as the password of Basic"
        );
        assert_eq!(
            places_of(&[key, KeyPlace::Authorization, KeyPlace::Basic]),
            "x-api-key or authorization, behind a scheme or as the password of Basic"
        );
    }

    #[test]
    fn a_header_value_is_the_key() {
        let places = [header("x-api-key"), header("x-functions-key")];
        assert_eq!(read(&places, &[("x-api-key", b" k 1\t")]), key("k 1"));
        assert_eq!(read(&places, &[("x-functions-key", b"k1")]), key("k1"));
        assert_eq!(
            read(&places, &[("x-api-key", "schlüssel".as_bytes())]),
            key("schlüssel")
        );
    }

    #[test]
    fn a_place_that_is_not_read_is_no_credential() {
        assert_eq!(
            read(&[header("x-api-key")], &[("authorization", b"Bearer k1")]),
            Ok(None)
        );
        assert_eq!(
            read(&[KeyPlace::Authorization], &[("x-api-key", b"k1")]),
            Ok(None)
        );
        assert_eq!(
            read(&[], &[("x-api-key", b"k1"), ("authorization", b"k1")]),
            Ok(None)
        );
        assert_eq!(
            read(&[KeyPlace::Basic], &[("authorization", b"Bearer k1")]),
            Ok(None)
        );
        assert_eq!(read(&[KeyPlace::Basic], &[("authorization", b"k1")]), Ok(None));
    }

    #[test]
    fn any_scheme_or_none_may_stand_before_the_key() {
        for value in ["Bearer k1", "k1", "ApiKey   k1 ", "bearer\tk1", "Basic k1"] {
            assert_eq!(
                read(&[KeyPlace::Authorization], &[("authorization", value.as_bytes())]),
                key("k1"),
                "{value}"
            );
        }
    }

    #[test]
    fn a_place_that_is_named_twice_is_one_place() {
        let value = basic("user:k1");
        let line = [("authorization", value.as_bytes())];
        assert_eq!(
            read(&[KeyPlace::Authorization, KeyPlace::Authorization], &line),
            key(value.trim_start_matches("Basic "))
        );
        let line = [("authorization", b"Bearer k1".as_slice())];
        assert_eq!(read(&[KeyPlace::Basic, KeyPlace::Basic], &line), Ok(None));
    }

    #[test]
    fn basic_has_the_key_as_password_after_the_first_colon() {
        for places in [
            vec![KeyPlace::Basic],
            vec![KeyPlace::Basic, KeyPlace::Authorization],
        ] {
            for (text, expected) in [
                ("user:k1", "k1"),
                (":k1", "k1"),
                ("user:a:b", "a:b"),
                ("ü:schlüssel", "schlüssel"),
            ] {
                let value = basic(text);
                for value in [
                    value.clone(),
                    value.replace("Basic", "bAsIc"),
                    value.replace('=', ""),
                ] {
                    assert_eq!(
                        read(&places, &[("authorization", value.as_bytes())]),
                        key(expected),
                        "{value}"
                    );
                }
            }
        }
    }

    #[test]
    fn with_both_readings_other_schemes_show_the_key_plainly() {
        let places = [KeyPlace::Authorization, KeyPlace::Basic];
        assert_eq!(read(&places, &[("authorization", b"Bearer k1")]), key("k1"));
        assert_eq!(read(&places, &[("authorization", b"k1")]), key("k1"));
    }

    #[test]
    fn basic_that_cannot_be_read_is_still_a_credential() {
        let long = basic(&format!("user:{}", "k".repeat(BASIC_BYTES_MAX)));
        for value in [
            "Basic !!!",
            "Basic dXNlcg==",
            "Basic A",
            "Basic dXNlcjprMQ== x",
            &long,
        ] {
            assert_eq!(
                read(&[KeyPlace::Basic], &[("authorization", value.as_bytes())]),
                key("(unreadable)"),
                "{value}"
            );
        }
    }

    #[test]
    fn the_longest_key_is_read_behind_a_user_as_long() {
        let longest = "k".repeat(KEY_BYTES_MAX);
        for (user, expected) in [
            (longest.clone(), longest.as_str()),
            (longest.clone() + "u", "(unreadable)"),
        ] {
            let value = basic(&format!("{user}:{longest}"));
            assert_eq!(
                read(&[KeyPlace::Basic], &[("authorization", value.as_bytes())]),
                key(expected)
            );
        }
    }

    #[test]
    fn an_empty_value_is_absent() {
        let places = [header("x-api-key"), KeyPlace::Authorization];
        assert_eq!(
            read(&places, &[("x-api-key", b""), ("authorization", b"  ")]),
            Ok(None)
        );
        assert_eq!(
            read(&places, &[("x-api-key", b""), ("authorization", b"Bearer k1")]),
            key("k1")
        );
        assert_eq!(
            read(
                &[KeyPlace::Basic],
                &[("authorization", basic("user:").as_bytes())]
            ),
            Ok(None)
        );
    }

    #[test]
    fn the_same_key_twice_is_one_key() {
        let places = [header("x-api-key"), KeyPlace::Basic];
        let basic = basic("user:k1");
        let lines: [(&str, &[u8]); 3] = [
            ("x-api-key", b"k1"),
            ("x-api-key", b"k1 "),
            ("authorization", basic.as_bytes()),
        ];
        assert_eq!(read(&places, &lines), key("k1"));
    }

    #[test]
    fn two_different_keys_are_refused() {
        let places = [header("x-api-key"), header("x-other"), KeyPlace::Basic];
        for lines in [
            [("x-api-key", b"k1".as_slice()), ("x-api-key", b"k2".as_slice())],
            [("x-api-key", b"k1"), ("x-other", b"k22")],
            [("x-api-key", b"k1"), ("authorization", b"Basic !!!")],
            [("authorization", b"Basic !!!"), ("authorization", b"Basic !!!")],
        ] {
            assert_eq!(read(&places, &lines), Err(Kind::KeysDiffer), "{lines:?}");
        }
    }

    #[test]
    fn the_headers_read_are_the_headers_to_strip() {
        let reader = KeyReader::build(&[header("x-api-key"), KeyPlace::Basic, header("x-other")]);
        assert_eq!(reader.header_places(), ["x-api-key", "x-other"]);
    }

    proptest! {
        #[test]
        fn no_value_breaks_the_reader(
            scheme in "(basic |bearer )?",
            value in proptest::collection::vec(32u8..127, 0..64),
        ) {
            let mut line = scheme.into_bytes();
            line.extend(value);
            let both = [KeyPlace::Basic, KeyPlace::Authorization];
            for places in [&both[..1], &both[1..], &both] {
                let _ = read(places, &[("authorization", &line)]);
            }
        }

        #[test]
        fn every_password_comes_back(
            user in "[^:]*",
            password in proptest::collection::vec(any::<u8>(), 1..64),
        ) {
            let mut text = user.into_bytes();
            text.push(b':');
            text.extend(&password);
            for encoded in [BASE64.encode(&text), base64::prelude::BASE64_STANDARD_NO_PAD.encode(&text)] {
                let line = format!("Basic {encoded}");
                let found = read(&[KeyPlace::Basic], &[("authorization", line.as_bytes())]);
                assert_eq!(found, Ok(Some(password.clone())));
            }
        }
    }

    #[test]
    fn a_key_of_the_url_is_read_where_the_route_says() {
        let query = KeyReader::build(&[KeyPlace::Query("code".to_owned()), header("x-api-key")]);
        let read = |reader: &KeyReader, target: &str, path: Option<&str>, lines: &[(&str, &[u8])]| {
            let headers = headers(lines);
            let found = reader
                .read(&headers, target, path)
                .map_err(|problem| problem.kind())?;
            Ok(found.map(|found| (found.candidate.as_bytes().to_vec(), found.is_in_url)))
        };
        let key = |in_url| Ok(Some((b"k+1".to_vec(), in_url)));
        assert_eq!(read(&query, "/a?x=1&code=k%2B1", None, &[]), key(true));
        assert_eq!(read(&query, "/a?c%6fde=k+1&code=k+1", None, &[]), key(true));
        assert_eq!(read(&query, "/a", None, &[("x-api-key", b"k+1")]), key(false));
        assert_eq!(
            read(&query, "/a?code=k+1", None, &[("x-api-key", b"k+1")]),
            key(true)
        );
        assert_eq!(read(&query, "/a?code=", Some("k"), &[]), Ok(None));
        assert_eq!(read(&query, "/a?code=1&code=2", None, &[]), Err(Kind::KeysDiffer));
        let long = format!("/a?code={}", "k".repeat(4 * KEY_BYTES_MAX));
        assert_eq!(read(&query, &long, None, &[]), Ok(Some((Vec::new(), true))));
        let path = KeyReader::build(&[KeyPlace::Path]);
        assert_eq!(read(&path, "/a/k+1?code=2", Some("k+1"), &[]), key(true));
        assert_eq!(path.places(), "the path");
    }
}
