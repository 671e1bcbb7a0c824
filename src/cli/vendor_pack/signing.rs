//! How a request is signed, in words and as lines of a shell with `openssl`. Signatures that only a vendor can make, and those
//! inside the body, have no lines.

use http::Method;

use crate::cli::vendor_pack::pack::has_body;
use crate::cli::vendors;
use crate::model::signature::{
    Algorithm, Content, Encoding, KeyForm, Piece, Place, Recipe, TimeUnit, TimestampPlace,
};

/// What a shell does before it sends, and what it adds to the request.
#[derive(Debug, Default)]
pub(super) struct Signing {
    pub(super) lines: Vec<String>,
    pub(super) arguments: Vec<String>,
    /// A parameter for the query of the address, within double quotes.
    pub(super) parameter: Option<String>,
}

/// What is signed.
pub(super) struct Request<'r> {
    pub(super) method: &'r Method,
    /// As it is written between double quotes of a shell.
    pub(super) url: &'r str,
    pub(super) body: &'r str,
}

/// The section of the page.
pub(super) fn section(recipe: &Recipe) -> String {
    let places: Vec<_> = recipe
        .signature
        .iter()
        .map(|place| format!("`{place}`"))
        .collect();
    let beside = match recipe.timestamp.as_ref().map(|timestamp| &timestamp.place) {
        Some(TimestampPlace::Beside(prefix)) => {
            let separator = recipe.separator.map_or(String::new(), String::from);
            format!("{prefix}TIMESTAMP{separator}")
        }
        _ => String::new(),
    };
    let value = match recipe.algorithm {
        Algorithm::Token => "SECRET",
        _ => "SIGNATURE",
    };
    let encoding = match recipe.encoding {
        Encoding::Hex => "hex",
        Encoding::Base64 => "base64",
        Encoding::Base64Url => "base64url",
        Encoding::Plain => "as it is",
    };
    let mut rows = vec![
        ("in", places.join(" or ")),
        ("written as", format!("`{beside}{}{value}`", recipe.prefix)),
        ("over", vendors::over(recipe)),
        ("algorithm", vendors::algorithm(recipe.algorithm).to_owned()),
        ("encoding", encoding.to_owned()),
    ];
    if recipe.timestamp.is_some() {
        rows.push(("timestamp", vendors::timestamp(recipe)));
    }
    if let Some(id) = &recipe.id {
        rows.push(("id of the delivery", format!("`{id}`")));
    }
    let rows: String = rows
        .iter()
        .map(|(what, value)| format!("| {what} | {value} |\n"))
        .collect();
    format!(
        "## Signature\n\nWhere it covers the body, it covers the bytes that are sent. The secret is the one that you and the operator share.\n\n| what | value |\n| --- | --- |\n{rows}"
    )
}

/// The lines that sign a request as `Scheme::verify` wants it; none where a shell cannot.
pub(super) fn script(recipe: &Recipe, request: &Request<'_>) -> Option<Signing> {
    let mut signing = Signing::default();
    signing.lines.push("SECRET='...'".to_owned());
    if has_body(request.method) {
        signing.lines.push(format!("BODY={}", quoted(request.body)));
    }
    let mut beside = String::new();
    if let Some(timestamp) = &recipe.timestamp {
        signing.lines.push(match timestamp.unit {
            TimeUnit::Seconds => "NOW=$(date +%s)".to_owned(),
            TimeUnit::Milliseconds => "NOW=$(date +%s)000".to_owned(),
            TimeUnit::Rfc3339 => "NOW=$(date -u +%Y-%m-%dT%H:%M:%SZ)".to_owned(),
        });
        match &timestamp.place {
            TimestampPlace::At(Place::Header(name)) => signing.arguments.push(format!("-H \"{name}: $NOW\"")),
            TimestampPlace::At(_) => return None,
            TimestampPlace::Beside(prefix) => {
                beside = format!("{}$NOW{}", unquoted(prefix), recipe.separator?);
            }
        }
    }
    if let Some(Place::Header(name)) = &recipe.id {
        signing.lines.push("ID=test-$$".to_owned());
        signing.arguments.push(format!("-H \"{name}: $ID\""));
    }
    let value = match recipe.algorithm {
        Algorithm::Token if recipe.encoding == Encoding::Plain => "$SECRET",
        Algorithm::Token => {
            signing.lines.push(format!(
                "SIGNATURE=$(printf '%s' \"$SECRET\"{})",
                encoded(recipe.encoding)?
            ));
            "$SIGNATURE"
        }
        _ => {
            signing.lines.extend(hmac(recipe, request)?);
            "$SIGNATURE"
        }
    };
    let value = format!("{beside}{}{value}", unquoted(&recipe.prefix));
    match recipe.signature.first()? {
        Place::Header(name) => signing.arguments.push(format!("-H \"{name}: {value}\"")),
        Place::Query(name) => {
            signing.parameter = Some(format!("{}={value}", unquoted(name)));
        }
        Place::Body(_) => return None,
    }
    Some(signing)
}

fn hmac(recipe: &Recipe, request: &Request<'_>) -> Option<[String; 2]> {
    let Request { method, url, .. } = *request;
    let digest = match recipe.algorithm {
        Algorithm::HmacSha1 => "sha1",
        Algorithm::HmacSha256 => "sha256",
        Algorithm::HmacSha512 => "sha512",
        Algorithm::Ed25519 | Algorithm::EcdsaP256 | Algorithm::RsaCertificate | Algorithm::Token => {
            return None;
        }
    };
    let is_word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let prefix = Some(&recipe.key_prefix).filter(|prefix| is_word(prefix))?;
    // The key in hex is the one form in which openssl takes any bytes.
    let key = match recipe.key_form {
        KeyForm::Text => format!("printf '%s' \"${{SECRET#{prefix}}}\" | od -An -v -tx1 | tr -d ' \\n'"),
        KeyForm::Base64 => {
            format!("printf '%s' \"${{SECRET#{prefix}}}\" | base64 -d | od -An -v -tx1 | tr -d ' \\n'")
        }
        KeyForm::Hex => format!("printf '%s' \"${{SECRET#{prefix}}}\""),
        KeyForm::Public => return None,
    };
    let Content::Template(template) = &recipe.content else {
        return None;
    };
    let mut text = String::new();
    for piece in &template.0 {
        match piece {
            Piece::Text(fixed) => text.push_str(&unquoted(fixed)),
            Piece::Body if has_body(method) => text.push_str("$BODY"),
            Piece::Body => {}
            Piece::Timestamp => text.push_str("$NOW"),
            Piece::Id if matches!(recipe.id, Some(Place::Header(_))) => text.push_str("$ID"),
            Piece::Url => text.push_str(url),
            Piece::UrlDecoded if !url.contains('%') => text.push_str(url),
            Piece::Method => text.push_str(method.as_str()),
            Piece::Id | Piece::UrlDecoded | Piece::At(_) | Piece::BodyCrc | Piece::Secret => return None,
        }
    }
    let sign = format!("openssl dgst -{digest} -mac HMAC -macopt \"hexkey:$HEX\" -binary");
    let encode = encoded(recipe.encoding)?;
    Some([
        format!("HEX=$({key})"),
        format!("SIGNATURE=$(printf '%s' \"{text}\" | {sign}{encode})"),
    ])
}

/// What turns bytes into the text of a signature.
fn encoded(encoding: Encoding) -> Option<&'static str> {
    match encoding {
        Encoding::Hex => Some(" | od -An -v -tx1 | tr -d ' \\n'"),
        Encoding::Base64 => Some(" | base64 | tr -d '\\n'"),
        Encoding::Base64Url => Some(" | base64 | tr -d '=\\n' | tr '+/' '-_'"),
        Encoding::Plain => None,
    }
}

/// A text as one word of a shell.
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A text as it is written between double quotes of a shell.
pub(super) fn unquoted(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            written.push('\\');
        }
        written.push(c);
    }
    written
}
