//! Which query parameters of the caller go on to the trigger or the API, byte for byte. The trigger's own parameters, and
//! a token for an API, never come from a caller, however they are spelled.

use percent_encoding::percent_decode_str;

use crate::model::trigger::OWN_PARAMETERS;
use crate::settings::QueryPass;

/// How a bearer token is written into an address (RFC 6750 section 2.3). Beside ours it would be a second one, and an API
/// may take either.
const TOKEN_PARAMETERS: &[&str] = &["access_token"];

/// Longest request target a trigger accepts (Power Automate: "Limits and configuration"); bytes.
pub(super) const TARGET_BYTES_MAX: usize = 16_384;

/// Whose parameters never come from a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// Those of a trigger's own address.
    Triggers,
    /// Those that stand for a token.
    Tokens,
}

impl Reserved {
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Triggers => &OWN_PARAMETERS,
            Self::Tokens => TOKEN_PARAMETERS,
        }
    }
}

/// Appends to `target` what passes of `query`. The target already has a query of its own, or not.
pub(super) fn append(target: &mut String, query: Option<&str>, pass: &QueryPass, reserved: Reserved) {
    let Some(query) = query else { return };
    if *pass == QueryPass::None {
        return;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if passes(pair, pass, reserved) {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(pair);
        }
    }
}

fn passes(pair: &str, pass: &QueryPass, reserved: Reserved) -> bool {
    // Some servers split at `;` as well: a pair must not hide a reserved parameter behind it.
    let mut names = pair
        .split(';')
        .map(|part| part.split('=').next().unwrap_or_default());
    if names.any(|name| hides_reserved(name, reserved)) {
        return false;
    }
    match pass {
        QueryPass::None => false,
        QueryPass::All => true,
        QueryPass::Named(names) => {
            let name = name_of(pair);
            names.contains(&name)
        }
    }
}

/// The decoded name of a pair; what cannot be decoded keeps its replacement marks and matches nothing.
fn name_of(pair: &str) -> String {
    let raw = pair.split('=').next().unwrap_or_default();
    percent_decode_str(raw)
        .decode_utf8_lossy()
        .replace('+', " ")
        .trim()
        .to_owned()
}

/// Encodings within one another that are undone. No caller needs more than two, so a name with more of them
/// hides something.
const ENCODINGS_MAX: usize = 4;

/// Whether some server could read a reserved name in the name of a pair: one that decodes it several times,
/// knows `%u0073` (IIS, .NET), ends it at NUL, or takes a letter for another. A name wrongly found reserved
/// costs a parameter that nobody has; one wrongly let through gives the trigger a second signature.
fn hides_reserved(raw: &str, reserved: Reserved) -> bool {
    let mut name = raw.as_bytes().to_vec();
    for _ in 0..ENCODINGS_MAX {
        if is_reserved(&name, reserved) {
            return true;
        }
        let decoded = decode(&name);
        if decoded == name {
            return false;
        }
        name = decoded;
    }
    true
}

/// Undoes one encoding: `%73`, and `%u0073` as servers of Microsoft do.
fn decode(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let unicode = after.strip_prefix(b"u").or(after.strip_prefix(b"U"));
        let (digits, behind) = match (first, unicode) {
            (b'%', Some(behind)) => (4, behind),
            (b'%', None) => (2, after),
            _ => (0, after),
        };
        let number = behind.get(..digits).filter(|_| digits > 0).and_then(number);
        let Some((number, next)) = number.zip(behind.get(digits..)) else {
            decoded.push(first);
            rest = after;
            continue;
        };
        match (digits, u8::try_from(number)) {
            (2, Ok(byte)) => decoded.push(byte),
            _ => {
                let letter = char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER);
                decoded.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        rest = next;
    }
    decoded
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        Some(number * 16 + char::from(*digit).to_digit(16)?)
    })
}

/// Whether a decoded name has a reserved one in it. Names are compared by their letters, digits and `-` and
/// `_`, without case: what else is there may be blanks, brackets or invisible to the server.
fn is_reserved(name: &[u8], reserved: Reserved) -> bool {
    // No name has a control character, and some servers end it there. The bytes C0 and C1 begin ASCII letters
    // in a longer form than UTF-8 allows.
    if name
        .iter()
        .any(|byte| byte.is_ascii_control() || matches!(byte, 0xc0 | 0xc1))
    {
        return true;
    }
    let text = String::from_utf8_lossy(name);
    // What a server that decodes once more takes for the end of a name, or for another pair.
    text.split(['&', ';', '=', '?', '#']).any(|part| {
        // `sig[0]` is an element of a list of that name.
        let part = part.split('[').next().unwrap_or_default();
        let plain: String = part.chars().filter_map(plain).collect();
        reserved.names().contains(&plain.as_str())
    })
}

/// The ASCII letter or digit, in lower case, that a character may be taken for: full-width forms (U+FF01 to
/// U+FF5E), and letters such as the long s whose upper case is one of ASCII.
fn plain(letter: char) -> Option<char> {
    let narrow = match u32::from(letter) {
        wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xfee0)?,
        _ => letter.to_uppercase().next()?,
    };
    let is_named = narrow.is_ascii_alphanumeric() || matches!(narrow, '-' | '_');
    is_named.then(|| narrow.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::proptest;

    use super::{Reserved, append};
    use crate::model::trigger::OWN_PARAMETERS;
    use crate::settings::QueryPass;

    fn passed(query: &str, pass: &QueryPass) -> String {
        let mut target = "/invoke?api-version=1".to_owned();
        append(&mut target, Some(query), pass, Reserved::Triggers);
        target.trim_start_matches("/invoke?api-version=1").to_owned()
    }

    #[test]
    fn only_listed_parameters_pass_byte_for_byte() {
        let pass = QueryPass::Named(vec!["a".into(), "b c".into()]);
        assert_eq!(
            passed("a=%2f1&x=2&b+c=3&b%20c=4&A=5", &pass),
            "&a=%2f1&b+c=3&b%20c=4"
        );
        assert_eq!(passed("a=1", &QueryPass::None), "");
    }

    #[test]
    fn the_triggers_own_parameters_never_pass() {
        for query in [
            "sig=x",
            "SIG=x",
            "s%69g=x",
            "s%2569g=x",
            "api-version=1",
            "a=1;sig=x",
            "%73p=1",
            "sv",
            "se=",
            "+sig=1",
        ] {
            assert_eq!(passed(query, &QueryPass::All), "", "{query}");
        }
        assert_eq!(passed("signal=1&sigx=2", &QueryPass::All), "&signal=1&sigx=2");
    }

    #[test]
    fn no_other_reading_of_a_name_is_one_of_the_triggers_own() {
        for query in [
            "%u0073ig=x",
            "%U0073ig=x",
            "%25u0073ig=x",
            "%u0025u0073ig=x",
            "%u0025%37%33ig=x",
            "%252573ig=x",
            "%25252573ig=x",
            "%2525252573ig=x",
            "sig%00=x",
            "sig%00abc=x",
            "%00sig=x",
            "si%00g=x",
            "sig%u0000abc=x",
            "sig%0a=x",
            "sig%20=x",
            "sig%C2%A0=x",
            "sig%E2%80%8B=x",
            "sig%ff=x",
            "sig[]=x",
            "sig%5B0%5D=x",
            "%c5%bfig=x",
            "%uff53ig=x",
            "%ef%bd%93ig=x",
            "%c1%b3ig=x",
            "a%26sig=x",
            "a%3b%73ig=x",
            "sig%3dx=y",
            "sig%2523=x",
            "API%2dVersion=1",
            "%61pi-version%00=1",
        ] {
            assert_eq!(passed(query, &QueryPass::All), "", "{query}");
        }
        let theirs = "signature=1&a%5B%5D=2&%C3%A9t%C3%A9=3&gr%F6%DFe=4&100%25=5&100%=6&a[sig]=7&%u=7&%zz=8&\
                      a%20b=9&spot=s%69g%00";
        assert_eq!(passed(theirs, &QueryPass::All), format!("&{theirs}"));
    }

    #[test]
    fn a_name_of_the_longest_target_is_judged_at_once() {
        let nested = format!("%{}73ig=x", "25".repeat(8000));
        assert_eq!(passed(&nested, &QueryPass::All), "");
    }

    #[test]
    fn a_token_never_passes_to_an_api_and_its_signature_does() {
        let mut target = "/me".to_owned();
        let query = "access_token=x&$top=1&sig=y&Access_Token=z&a=1;access%5Ftoken=x&access%255ftoken=x";
        append(&mut target, Some(query), &QueryPass::All, Reserved::Tokens);
        assert_eq!(target, "/me?$top=1&sig=y");
    }

    proptest! {
        #[test]
        fn no_spelling_smuggles_a_signature(query in "([a-zA-Z0-9%;&=+-]|%25|%73|sig){0,60}") {
            let out = passed(&query, &QueryPass::All);
            for pair in out.split(['&', ';']) {
                let mut name = pair.split('=').next().unwrap_or_default().to_owned();
                for _ in 0..20 {
                    let read = name.to_lowercase();
                    assert!(!OWN_PARAMETERS.contains(&read.trim()), "{out}");
                    name = percent_decode_str(&name).decode_utf8_lossy().into_owned();
                }
            }
        }
    }
}
