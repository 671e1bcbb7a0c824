//! Texts that others write: settings, addresses, answers of Entra and of the platform. None makes the parser
//! panic, and no message about one reveals more than it may.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use flowgate::entra::{answer, refused};
use flowgate::flow::evidence::{Evidence, Expected, Reading};
use flowgate::flow::{evidence, fault};
use flowgate::model::{Cloud, Tenant, TriggerUrl};
use flowgate::problem::Kind;
use flowgate::settings;
use flowgate::settings::{Environment, Mistake, Secrets, Style};
use http::uri::PathAndQuery;
use http::{HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;

use super::{distinctive_words, is_one_line};

/// Part of every secret that settings read from outside of their file.
const OUTSIDE: &str = "canary-from-outside";

fn environment(secrets: Secrets) -> Environment {
    let signed = format!(
        "https://prod-00.westeurope.logic.azure.com/workflows/00000000000000000000000000000000/triggers/manual/paths/invoke?api-version=2016-10-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig={OUTSIDE}"
    );
    let pairs = [
        ("FLOWGATE_CLIENT_SECRET", OUTSIDE.to_owned()),
        ("FLOWGATE_PEPPER", format!("{OUTSIDE}-and-longer")),
        ("FLOWGATE_RUN_ADDRESSES", format!("{OUTSIDE}-and-longest")),
        ("FLOWGATE_KEY", format!("-----BEGIN {OUTSIDE}-----")),
        ("FLOWGATE_TRIGGER", signed),
        (
            "FLOWGATE_TORN",
            format!("http://{OUTSIDE}.example/?sig={OUTSIDE}"),
        ),
    ];
    Environment::from_pairs(pairs)
        .with(secrets)
        .at(UNIX_EPOCH + Duration::from_secs(1_790_000_000))
}

/// A PFX file is opened or refused with one reason, and neither its password nor its key is shown.
pub(crate) fn pfx(data: &[u8]) {
    const PASSWORD: &str = "canary-password";
    let guid = "11111111-2222-4333-8444-555555555555";
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\nplain_http = \"private-networks\"\nplain_http_from = [\"127.0.0.0/8\"]\n\
         [[identity]]\nname = \"contoso\"\ntenant = \"{guid}\"\nclient_id = \"{guid}\"\n[[identity.certificate]]\n\
         file = \"env:PFX\"\npassword = \"env:PASSWORD\"\n\
         [[route]]\nname = \"orders\"\npath = \"/orders\"\nanonymous = true\nidentity = \"contoso\"\n\
         trigger = \"https://prod-00.westeurope.logic.azure.com/workflows/00000000000000000000000000000000/triggers/manual/paths/invoke?api-version=2016-10-01\""
    );
    let packed = STANDARD.encode(data);
    let environment = Environment::from_pairs([("PFX", packed.as_str()), ("PASSWORD", PASSWORD)])
        .at(UNIX_EPOCH + Duration::from_secs(1_790_000_000));
    let shown = match settings::parse(&text, Path::new("no-such-folder/flowgate.toml"), &environment) {
        Ok((config, warnings)) => format!("{config:?}\n{}", lines(&warnings)),
        Err(report) => {
            assert_eq!(report.mistakes().len(), 1, "{}", report.render(Style::Plain));
            format!("{}\n{report:?}", report.render(Style::Plain))
        }
    };
    assert!(!shown.contains(PASSWORD), "{shown}");
    assert!(packed.len() < 80 || !shown.contains(&packed[..80]), "{shown}");
}

/// Any settings are parsed to the end, and neither a report nor the settings themselves show a secret.
pub(crate) fn settings(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let hidden = secrets_of(text);
    for secrets in [Secrets::Resolved, Secrets::Unresolved] {
        // A folder that does not exist: files that the settings name are not found, except by their full
        // path.
        let origin = Path::new("no-such-folder/flowgate.toml");
        let shown = match settings::parse(text, origin, &environment(secrets)) {
            Ok((config, warnings)) => format!("{config:?}\n{}", lines(&warnings)),
            Err(report) => {
                assert!(!report.mistakes().is_empty(), "refused without a reason");
                format!(
                    "{}\n{}\n{}\n{report:?}",
                    report.render(Style::Plain),
                    report.render(Style::Color),
                    lines(report.mistakes())
                )
            }
        };
        assert!(text.contains(OUTSIDE) || !shown.contains(OUTSIDE), "{shown}");
        for secret in &hidden {
            assert!(!shown.contains(secret), "{secret} in\n{shown}");
        }
    }
}

fn lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Words of settings that are valid TOML which no message may repeat.
fn secrets_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(table) = text.parse::<toml::Table>() {
        collect("", &toml::Value::Table(table), &mut found);
    }
    let words = found.iter().flat_map(|secret| distinctive_words(secret, text));
    words.map(str::to_owned).collect()
}

fn collect(key: &str, value: &toml::Value, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => table
            .iter()
            .for_each(|(key, value)| collect(&key.to_ascii_lowercase(), value, found)),
        toml::Value::Array(values) => values.iter().for_each(|value| collect(key, value, found)),
        toml::Value::String(value) => match key {
            "client_secret" | "pepper" | "key" | "digest" if value.starts_with("file:") => {}
            "client_secret" | "pepper" | "key" | "digest" if value.starts_with("env:") => {}
            "client_secret" | "pepper" | "key" | "digest" => {
                let digest = value.strip_prefix("sha256:");
                let digest = digest.or_else(|| value.strip_prefix("hmac-sha256:"));
                found.push(digest.unwrap_or(value).to_owned());
            }
            _ => found.extend(
                value
                    .split_once("sig=")
                    .map(|(_, signature)| signature.to_owned()),
            ),
        },
        _ => {}
    }
}

/// An address is refused, or kept byte for byte and shown without its query.
pub(crate) fn trigger_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    // A host is shown in lower case, so a word that appears there in another case was not copied from the
    // query.
    let lower = text.to_ascii_lowercase();
    let query = lower.split_once('?').map_or("", |(_, query)| query);
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let secrets: Vec<_> = pairs
        .filter(|(key, _)| !key.contains('%') && !key.eq_ignore_ascii_case("api-version"))
        .flat_map(|(_, value)| distinctive_words(value, &lower))
        .collect();
    let shown = match TriggerUrl::parse(text) {
        Ok(url) => {
            kept(text, &url);
            format!("{url} {url:?} {:?} {:?}", url.api_version(), url.warning())
        }
        Err(error) => format!("{error} {error:?} {:?}", error.hint()),
    };
    for secret in secrets {
        assert!(
            !shown.to_ascii_lowercase().contains(secret),
            "{secret} in {shown}"
        );
    }
}

fn kept(text: &str, url: &TriggerUrl) {
    let sent = url.exposed_path_and_query();
    let sent = sent.expose();
    let after_host = text["https://".len()..].find(['/', '?']);
    let expected = after_host.map_or("", |at| &text["https://".len() + at..]);
    let expected = if expected.starts_with('/') {
        expected.to_owned()
    } else {
        format!("/{expected}")
    };
    assert_eq!(sent, expected, "a signature covers every byte");
    assert_eq!(url.path_and_query().as_str(), sent);
    assert!(HeaderValue::from_str(url.authority()).is_ok());
    let again = TriggerUrl::parse(&format!("https://{}{sent}", url.authority())).unwrap();
    assert!(again.same_as(url), "{url}");
    assert_eq!(
        (again.family(), again.cloud(), again.is_signed()),
        (url.family(), url.cloud(), url.is_signed())
    );
    assert_eq!(url.is_signed(), url.require_signed().is_ok());
    assert_eq!(url.is_signed(), url.require_bearer().is_err());
    assert!(!(url.is_signed() && url.looks_cut()));
    let unsigned = url.path_and_query_unsigned();
    assert!(unsigned.parse::<PathAndQuery>().is_ok(), "{unsigned}");
    let query = unsigned.split_once('?').map_or("", |(_, query)| query);
    for pair in query.split('&') {
        let key = pair.split('=').next().unwrap_or_default();
        let key = percent_decode_str(key).decode_utf8_lossy().to_ascii_lowercase();
        assert!(
            !matches!(key.as_str(), "sp" | "sv" | "sig"),
            "{key} in {unsigned}"
        );
    }
}

/// The first line as a number, if it is one, and the rest.
fn status_and_body(data: &[u8]) -> (u16, &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = data.split_at(end);
    let number = std::str::from_utf8(line)
        .ok()
        .and_then(|line| line.trim().parse().ok());
    match number {
        Some(number) => (number, rest.get(1..).unwrap_or_default()),
        None => (400, data),
    }
}

/// Any answer of the token endpoint becomes a token that can be sent, or a refusal that repeats none of its
/// words.
pub(crate) fn entra_answer(data: &[u8]) {
    let (status, body) = status_and_body(data);
    let text = String::from_utf8_lossy(body);
    match answer::read(body) {
        Ok(granted) => {
            let bearer = format!("Bearer {}", granted.token.expose());
            let value = HeaderValue::from_str(&bearer).unwrap();
            assert_eq!(value.to_str().unwrap().split(' ').count(), 2);
            assert!(granted.life <= Duration::from_secs(48 * 3600));
            let shown = format!("{granted:?}");
            for secret in distinctive_words(granted.token.expose(), &text) {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        Err(error) => {
            let shown = format!("{error} {error:?}");
            for word in distinctive_words(&text, &text) {
                assert!(!shown.contains(word), "{word} in {shown}");
            }
        }
    }
    for wait in [None, Some(Duration::MAX)] {
        let refusal = refused::read(status, body, wait);
        assert!(refusal.retry_after <= Some(refused::RETRY_AFTER_MAX));
        let said = refusal.sentence("orders", "tenant", "client");
        assert!(is_one_line(&said) && said.is_ascii(), "{said}");
        assert!(said.len() < 1000, "{said}");
        // The number comes from a member of its own; the prefix before it is ours, whatever the description
        // has before a number.
        let said = said.replace("AADSTS", " ");
        let fields: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let description = fields["error_description"].as_str().unwrap_or_default();
        for word in distinctive_words(description, &text) {
            // Numbers and ids are copied, because support asks for them.
            let id = word.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
            let number = word.starts_with("AADSTS");
            assert!(id || number || !said.contains(word), "{word} in {said}");
        }
    }
}

/// Any answer of the platform is the flow's own or a fault, reported in one line that repeats nothing of a
/// caller's body.
pub(crate) fn fault_body(data: &[u8]) {
    let (status, body) = status_and_body(data);
    let Ok(status) = StatusCode::from_u16(status) else {
        return;
    };
    let text = String::from_utf8_lossy(body);
    for (www_authenticate, content_type) in [
        (None, None),
        (Some("Bearer realm=\"\""), Some("application/json")),
        (None, Some("text/html")),
    ] {
        let mut evidence = Evidence {
            status,
            run_id: None,
            www_authenticate,
            content_type,
            body,
        };
        let reading = evidence::classify(&evidence);
        if let Reading::Fault(found) = &reading {
            assert!(status.is_client_error() || status.is_server_error());
            let said = found.to_string();
            assert!(is_one_line(&said), "{said:?}");
            assert!(
                said.chars().count() < 12 * evidence::MESSAGE_CHARS_MAX,
                "{} characters",
                said.len()
            );
            if found.row.kind == Kind::BodyRefusedByFlow {
                for word in distinctive_words(&text, &text) {
                    assert!(!said.contains(word), "{word} in {said}");
                }
            }
        }
        whose(status, body, &reading);
        evidence.run_id = Some("08584290143402151988728929011CU00");
        assert!(
            matches!(evidence::classify(&evidence), Reading::Owner),
            "a run is the owner's"
        );
    }
    explanation(body, &text);
}

/// An answer without a run is recognized as the platform's by a known code, or else by its status. One with
/// repeated members may be anybody's, so the effect of a code is checked on the same document without them.
fn whose(status: StatusCode, body: &[u8], reading: &Reading) {
    let failed = status.is_client_error() || status.is_server_error();
    let by_status = matches!(status.as_u16(), 401 | 403 | 404 | 408 | 413 | 429 | 500..=599);
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let document: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match reading {
        Reading::Owner => assert!(!by_status, "{status} passed as the owner's"),
        Reading::Fault(found) => {
            let code = found.row.failure.code;
            // What is not evaluated need not even be text.
            let named = String::from_utf8_lossy(body).contains(code) || holds(&document, code);
            assert!(by_status || named, "{status} {document}");
        }
    }
    let code = document["error"]["code"].as_str().unwrap_or_default();
    if failed && fault::CODES.iter().any(|row| row.failure.code == code) {
        let canonical = document.to_string();
        let plain = Evidence {
            status,
            run_id: None,
            www_authenticate: None,
            content_type: None,
            body: canonical.as_bytes(),
        };
        let read = evidence::classify(&plain);
        assert!(
            matches!(read, Reading::Fault(found) if found.row.failure.code == code),
            "{document}"
        );
    }
}

fn holds(document: &serde_json::Value, text: &str) -> bool {
    match document {
        serde_json::Value::String(found) => found == text,
        serde_json::Value::Array(values) => values.iter().any(|value| holds(value, text)),
        serde_json::Value::Object(members) => members.values().any(|value| holds(value, text)),
        _ => false,
    }
}

/// The explanation of a token, given as it is and as the claims inside of one.
fn explanation(body: &[u8], text: &str) {
    let tenant = Tenant::parse("11111111-2222-3333-4444-555555555555").ok();
    let expected = Expected {
        audience: Cloud::Public.audience(),
        tenant: tenant.as_ref(),
        now: UNIX_EPOCH + Duration::from_secs(1_790_000_000),
    };
    let said = evidence::explain_mismatch(text, &expected);
    assert!(is_one_line(&said), "{said:?}");
    let payload = URL_SAFE_NO_PAD.encode(body);
    let token = format!("e30.{payload}.c2ln");
    let said = evidence::explain_mismatch(&token, &expected);
    assert!(is_one_line(&said), "{said:?}");
    assert!(!said.contains(&token) && (payload.len() < 24 || !said.contains(&payload)));
}
