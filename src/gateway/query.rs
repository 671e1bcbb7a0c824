//! Which query parameters of the caller go on to the trigger or the API, byte for byte. The trigger's own parameters, and
//! a token for an API, never come from a caller, however they are spelled.

use percent_encoding::percent_decode_str;

use crate::config::QueryPass;
use crate::model::trigger::OWN_PARAMETERS;

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
    if pair.split(';').any(|part| is_reserved(&name_of(part), reserved)) {
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

fn is_reserved(name: &str, reserved: Reserved) -> bool {
    // Decoded once more: a server that decodes twice must not find one either.
    let twice = percent_decode_str(name).decode_utf8_lossy();
    let is = |own: &&str| own.eq_ignore_ascii_case(name) || own.eq_ignore_ascii_case(twice.trim());
    reserved.names().iter().any(is)
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode_str;
    use proptest::prelude::proptest;

    use super::Reserved;
    use super::append;
    use crate::config::QueryPass;
    use crate::model::trigger::OWN_PARAMETERS;

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
    fn a_token_never_passes_to_an_api_and_its_signature_does() {
        let mut target = "/me".to_owned();
        let query = "access_token=x&$top=1&sig=y&Access_Token=z&a=1;access%5Ftoken=x&access%255ftoken=x";
        append(&mut target, Some(query), &QueryPass::All, Reserved::Tokens);
        assert_eq!(target, "/me?$top=1&sig=y");
    }

    proptest! {
        #[test]
        fn no_spelling_smuggles_a_signature(query in "[a-zA-Z0-9%;&=+-]{0,60}") {
            let out = passed(&query, &QueryPass::All);
            for pair in out.split(['&', ';']) {
                let name = pair.split('=').next().unwrap_or_default();
                let name = percent_decode_str(name).decode_utf8_lossy().to_lowercase();
                assert!(!OWN_PARAMETERS.contains(&name.trim()), "{out}");
            }
        }
    }
}
