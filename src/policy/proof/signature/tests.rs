//! Promises about all presets together, and about what is refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use allocation_counter::measure;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::any;
use proptest::{prop_assert, prop_assume, proptest};

use super::vectors::{CERTIFICATE, VECTORS, Vector};
use super::{Addition, Certificate, Head, Scheme, Unsigned, Unverified, Verified};
use crate::model::signature::{
    Algorithm, Content, Encoding, KeyForm, Place, Preset, Recipe, SigningSecret, Template, TimeUnit,
    TimestampPlace, TimestampRecipe,
};
use crate::model::{KeyLabel, Secret};

/// A request that is changed by a test.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn new(url: &str, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut request = Self {
            method: Method::POST,
            url: url.to_owned(),
            headers: HeaderMap::new(),
            body: body.to_vec(),
        };
        headers.iter().for_each(|(name, value)| request.add(name, value));
        request
    }

    fn add(&mut self, name: &str, value: &str) {
        let name: HeaderName = name.parse().unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
    }

    fn set(&mut self, name: &str, value: &str) {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
    }

    fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    fn head(&self) -> Head<'_> {
        Head {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
        }
    }

    fn signed_by(&self, scheme: &Scheme, now: SystemTime) -> Option<Self> {
        let unsigned = Unsigned {
            method: &self.method,
            url: &self.url,
            headers: &self.headers,
            body: &self.body,
            id: "delivery-1",
            now,
        };
        let mut signed = self.clone();
        for addition in scheme.sign(unsigned)? {
            match addition {
                Addition::Header(name, value) => drop(signed.headers.insert(name, value)),
                Addition::Query(name, value) => {
                    let joiner = if signed.url.contains('?') { '&' } else { '?' };
                    signed.url.push_str(&format!("{joiner}{name}={value}"));
                }
                Addition::Body(pointer, _) => panic!("{pointer} is in the body"),
            }
        }
        Some(signed)
    }
}

impl Vector {
    fn request(&self) -> Request {
        Request::new(self.url, self.headers, self.body.as_bytes())
    }
}

const NOW: u64 = 1_790_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn secret(label: &str, text: &str) -> SigningSecret {
    SigningSecret {
        label: KeyLabel::parse(label).unwrap(),
        secret: Secret::new(text),
        not_before: None,
        expires: None,
    }
}

fn scheme(preset: &str, text: &str) -> Scheme {
    let preset = Preset::named(preset).unwrap_or_else(|| panic!("there is no preset {preset}"));
    Scheme::build(&preset.recipe, &[secret("current", text)]).unwrap_or_else(|error| panic!("{error}"))
}

fn verify(scheme: &Scheme, request: &Request, now: u64) -> Result<Verified, Unverified> {
    let claim = scheme.claim(request.head(), at(now))?;
    let url = claim.certificate_url(&request.body)?;
    let claim = scheme.claim(request.head(), at(now))?;
    let certificate = url.map(|_| Certificate::from_pem(CERTIFICATE.as_bytes()).unwrap());
    claim.confirm(&request.body, certificate.as_ref())
}

fn vector(preset: &str) -> &'static Vector {
    VECTORS.iter().find(|vector| vector.preset == preset).unwrap()
}

/// A secret in the form of a recipe, for what is signed here.
fn some_secret(recipe: &Recipe) -> &'static str {
    match recipe.key_form {
        KeyForm::Text => "user:canary",
        KeyForm::Hex => "44782DEF547AAA06C910C43932B1EB0C",
        KeyForm::Base64 | KeyForm::Public => "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
}

#[test]
fn every_vector_is_accepted() {
    for vector in VECTORS {
        let scheme = scheme(vector.preset, vector.secret);
        let verified = verify(&scheme, &vector.request(), vector.now);
        let verified = verified.unwrap_or_else(|refusal| panic!("{}: {refusal}", vector.preset));
        assert_eq!(verified.id.as_deref(), vector.id, "{}", vector.preset);
        assert_eq!(verified.label.as_str(), "current");
        let is_timed = scheme.recipe.timestamp.is_some();
        assert_eq!(verified.timestamp.is_some(), is_timed, "{}", vector.preset);
    }
}

#[test]
fn every_preset_has_a_vector_and_a_name_of_its_own() {
    let mut names: Vec<_> = Preset::all().iter().map(|preset| preset.name).collect();
    for name in &names {
        assert!(
            VECTORS.iter().any(|vector| vector.preset == *name),
            "{name} has no vector"
        );
        assert!(KeyLabel::parse(name).is_ok(), "{name}");
    }
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a name is there twice");
}

#[test]
fn another_secret_accepts_no_vector() {
    for vector in VECTORS {
        let recipe = &Preset::named(vector.preset).unwrap().recipe;
        let other = match recipe.key_form {
            KeyForm::Text => "not-the-secret".to_owned(),
            KeyForm::Hex => "00".repeat(32),
            KeyForm::Base64 => "AAAA".to_owned(),
            // Other keys are in the rows of the other algorithm.
            KeyForm::Public => continue,
        };
        let refusal = verify(&scheme(vector.preset, &other), &vector.request(), vector.now).unwrap_err();
        let is_expected = matches!(refusal, Unverified::Mismatch(_) | Unverified::OtherSubject(_));
        assert!(is_expected, "{}: {refusal}", vector.preset);
    }
}

#[test]
fn no_byte_of_a_covered_body_can_be_changed() {
    for vector in VECTORS {
        let scheme = scheme(vector.preset, vector.secret);
        if !scheme.covers_body() {
            continue;
        }
        let request = vector.request();
        for index in 0..request.body.len() {
            let mut changed = request.clone();
            changed.body[index] ^= 1;
            let verified = verify(&scheme, &changed, vector.now);
            assert!(verified.is_err(), "{}: byte {index}", vector.preset);
        }
        let mut longer = request.clone();
        longer.body.push(b' ');
        assert!(verify(&scheme, &longer, vector.now).is_err(), "{}", vector.preset);
        let mut shorter = request;
        shorter.body.pop();
        assert!(
            verify(&scheme, &shorter, vector.now).is_err(),
            "{}",
            vector.preset
        );
    }
}

#[test]
fn no_signed_field_can_be_changed() {
    for (preset, from, to) in [
        ("adyen", "\"value\":1130", "\"value\":1131"),
        ("adyen", "7914073381342284", "7914073381342285"),
        ("adyen", "\"success\":\"true\"", "\"success\":\"false\""),
        ("mailgun", "c5ee", "c5ef"),
        ("mailgun", "1790000000", "1790000001"),
        ("sns", "Hello", "hello"),
        ("sns", "22b80b92", "22b80b93"),
        ("sns", "14:13:20.000Z", "14:13:21.000Z"),
        ("sns", "123456789012:orders", "123456789012:others"),
        (
            "business-central",
            "canary-signing-secret",
            "canary-signing-secreT",
        ),
    ] {
        let vector = vector(preset);
        let scheme = scheme(preset, vector.secret);
        let mut request = vector.request();
        assert!(vector.body.contains(from), "{preset}: {from}");
        request.body = vector.body.replacen(from, to, 1).into_bytes();
        assert!(verify(&scheme, &request, vector.now).is_err(), "{preset}: {from}");
    }
}

proptest! {
    #[test]
    fn a_change_of_one_byte_is_refused(
        row in any::<proptest::sample::Index>(),
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        place in any::<proptest::sample::Index>(),
    ) {
        let signable = Preset::all().iter().filter(|preset| is_signable(&preset.recipe));
        let signable: Vec<_> = signable.collect();
        let preset = row.get(&signable);
        let recipe = &preset.recipe;
        let scheme = scheme(preset.name, some_secret(recipe));
        let mut body = tail;
        if recipe.timestamp.is_some() && !scheme.pointers.is_empty() {
            body = format!("{{\"webhookTimestamp\": {}, \"x\": {body:?}}}", NOW * 1000).into_bytes();
        }
        let mut plain = Request::new("https://hooks.example/in?a=1", &[], &body);
        if recipe.content == Content::Twilio {
            let hash = crate::material::encode(
                aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &plain.body).as_ref(),
                Encoding::Hex,
            );
            plain.url.push_str(&format!("&bodySHA256={hash}"));
        }
        let signed = plain.signed_by(&scheme, at(NOW)).unwrap();
        let verified = verify(&scheme, &signed, NOW);
        // A body that begins as JSON and is none is refused where an id is taken out of it.
        prop_assume!(!matches!(verified, Err(Unverified::Body(_))));
        prop_assert!(verified.is_ok(), "{}: {:?}", preset.name, verified);

        let mut changed = signed.clone();
        if scheme.covers_body() && !changed.body.is_empty() {
            let index = place.index(changed.body.len());
            changed.body[index] ^= 1;
            prop_assert!(verify(&scheme, &changed, NOW).is_err(), "{}: body", preset.name);
        }
        for name in signed_headers(recipe) {
            let mut changed = signed.clone();
            let mut value = changed.headers[&name].as_bytes().to_vec();
            let index = place.index(value.len());
            value[index] ^= 1;
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            changed.headers.insert(&name, value);
            prop_assert!(verify(&scheme, &changed, NOW).is_err(), "{}: {name} {index}", preset.name);
        }
        let removed = signed_headers(recipe).into_iter().next();
        if let Some(name) = removed {
            prop_assert!(verify(&scheme, &signed.without(name.as_str()), NOW).is_err());
        }
    }

    #[test]
    fn any_signature_header_is_answered(value in "[ -~]{0,200}", row in any::<proptest::sample::Index>()) {
        let vector = row.get(VECTORS);
        let scheme = scheme(vector.preset, vector.secret);
        let mut request = vector.request();
        for name in signed_headers(&scheme.recipe) {
            request.set(name.as_str(), value.trim());
        }
        let _ = verify(&scheme, &request, vector.now);
    }
}

/// Whether a shared secret signs and the head carries the signature.
fn is_signable(recipe: &Recipe) -> bool {
    let is_public = recipe.key_form == KeyForm::Public || recipe.certificate.is_some();
    !is_public && recipe.signature.iter().all(|place| place.pointer().is_none())
}

/// The header fields that are signatures or signed.
fn signed_headers(recipe: &Recipe) -> Vec<HeaderName> {
    let mut places = vec![recipe.signature[0].clone()];
    if let Some(TimestampRecipe {
        place: TimestampPlace::At(place),
        ..
    }) = &recipe.timestamp
    {
        places.push(place.clone());
    }
    let headers = places.into_iter().filter_map(|place| match place {
        Place::Header(name) => Some(name),
        Place::Query(_) | Place::Body(_) => None,
    });
    headers.collect()
}

/// What is wrong with a request, and the cause that the log has.
type Defect = (&'static str, fn(&mut Request), fn(&Unverified) -> bool);

fn check(preset: &str, defects: &[Defect]) {
    let vector = vector(preset);
    let scheme = scheme(preset, vector.secret);
    for (what, change, is_expected) in defects {
        let mut request = vector.request();
        change(&mut request);
        let refusal = verify(&scheme, &request, vector.now).expect_err(what);
        assert!(is_expected(&refusal), "{what}: {refusal}");
    }
}

const HUB: &str = "x-hub-signature-256";
const RIGHT: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

const HEADER_DEFECTS: &[Defect] = &[
    (
        "missing",
        |r| drop(r.headers.remove(HUB)),
        |u| matches!(u, Unverified::Missing(_)),
    ),
    (
        "doubled",
        |r| r.add(HUB, RIGHT),
        |u| matches!(u, Unverified::Doubled(_)),
    ),
    ("empty", |r| r.set(HUB, ""), |u| matches!(u, Unverified::Empty(_))),
    (
        "a prefix alone",
        |r| r.set(HUB, "sha256="),
        |u| matches!(u, Unverified::Length { bytes: 0, .. }),
    ),
    (
        "truncated",
        |r| r.set(HUB, &RIGHT[..69]),
        |u| matches!(u, Unverified::Length { bytes: 31, .. }),
    ),
    (
        "half a byte",
        |r| r.set(HUB, &RIGHT[..70]),
        |u| matches!(u, Unverified::Encoding { .. }),
    ),
    (
        "another hash",
        |r| r.set(HUB, &RIGHT[7..]),
        |u| matches!(u, Unverified::OtherPrefix { .. }),
    ),
    (
        "another encoding",
        |r| r.set(HUB, "sha256=dXEH6g6yUJ/CESIczphLijdXC211hsIsRvQ3nIsEPhc="),
        |u| matches!(u, Unverified::Encoding { encoding: "hex", .. }),
    ),
    (
        "a comma more",
        |r| r.set(HUB, &format!("{RIGHT},")),
        |u| matches!(u, Unverified::Encoding { .. }),
    ),
    (
        "16 KiB",
        |r| r.set(HUB, &format!("sha256={}", "0".repeat(16 * 1024))),
        |u| matches!(u, Unverified::TooLong { .. }),
    ),
    (
        "not ASCII",
        |r| {
            drop(
                r.headers
                    .insert(HUB, HeaderValue::from_bytes(b"sha256=\xff").unwrap()),
            )
        },
        |u| matches!(u, Unverified::NotText(_)),
    ),
    (
        "another body",
        |r| r.body = b"Hello, World?".to_vec(),
        |u| matches!(u, Unverified::Mismatch(_)),
    ),
];

#[test]
fn a_malformed_signature_is_refused_by_its_cause() {
    check("github", HEADER_DEFECTS);
}

/// Changes the value of the signature.
fn with(request: &mut Request, change: fn(&str) -> String) {
    let value = request.headers["stripe-signature"].to_str().unwrap().to_owned();
    request.set("stripe-signature", &change(&value));
}

const LIST_DEFECTS: &[Defect] = &[
    (
        "a comma more",
        |r| with(r, |value| format!("{value},")),
        |u| matches!(u, Unverified::EmptyItem { .. }),
    ),
    (
        "two commas",
        |r| with(r, |value| value.replacen(',', ",,", 1)),
        |u| matches!(u, Unverified::EmptyItem { .. }),
    ),
    (
        "two timestamps",
        |r| with(r, |value| format!("{value},t=1790000000")),
        |u| matches!(u, Unverified::Doubled(_)),
    ),
    (
        "no timestamp",
        |r| with(r, |value| value.replace("t=", "u=")),
        |u| matches!(u, Unverified::Missing(_)),
    ),
    (
        "no signature of this version",
        |r| with(r, |value| value.replace("v1=", "v9=")),
        |u| matches!(u, Unverified::OtherPrefix { .. }),
    ),
    (
        "many signatures",
        |r| {
            with(r, |value| {
                format!("{}{value}", format!("v1={},", "0".repeat(64)).repeat(9))
            })
        },
        |u| matches!(u, Unverified::TooMany(_)),
    ),
    (
        "many items",
        |r| with(r, |value| format!("{}{value}", "a=1,".repeat(20))),
        |u| matches!(u, Unverified::TooMany(_)),
    ),
    (
        "milliseconds",
        |r| with(r, |value| value.replace("t=1790000000", "t=1790000000000")),
        |u| matches!(u, Unverified::TimestampOutside { .. }),
    ),
    (
        "a negative timestamp",
        |r| with(r, |value| value.replace("t=", "t=-")),
        |u| matches!(u, Unverified::TimestampForm { .. }),
    ),
    (
        "a timestamp of 400 digits",
        |r| {
            with(r, |value| {
                value.replace("t=1790000000", &format!("t={}", "1".repeat(400)))
            })
        },
        |u| matches!(u, Unverified::TimestampForm { .. }),
    ),
    (
        "another timestamp",
        |r| with(r, |value| value.replace("t=1790000000", "t=1790000001")),
        |u| matches!(u, Unverified::Mismatch(_)),
    ),
    (
        "the id twice",
        |r| r.body = br#"{"id":"a","id":"b"}"#.to_vec(),
        |u| matches!(u, Unverified::Mismatch(_)),
    ),
];

#[test]
fn a_malformed_list_of_signatures_is_refused_by_its_cause() {
    check("stripe", LIST_DEFECTS);
}

#[test]
fn a_request_of_another_route_is_refused() {
    let vector = vector("square");
    let mut request = vector.request();
    request.url.push('2');
    let refusal = verify(&scheme("square", vector.secret), &request, vector.now).unwrap_err();
    assert!(matches!(refusal, Unverified::Mismatch(_)), "{refusal}");
}

#[test]
fn a_form_is_covered_once() {
    check(
        "twilio",
        &[
            (
                "a parameter twice",
                |r| r.body.extend_from_slice(b"&Digits=1234"),
                |u| matches!(u, Unverified::Doubled(_)),
            ),
            (
                "many parameters",
                |r| r.body = b"a&".repeat(2000),
                |u| matches!(u, Unverified::TooMany(_)),
            ),
            (
                "a body that is no form",
                |r| r.set("content-type", "application/json"),
                |u| matches!(u, Unverified::Missing(_)),
            ),
            (
                "the hash of another body",
                |r| r.url.push_str("&bodySHA256=00"),
                |u| matches!(u, Unverified::BodyHash(_)),
            ),
        ],
    );
}

#[test]
fn fields_of_a_body_are_there_once() {
    check(
        "adyen",
        &[
            (
                "two notifications",
                |r| {
                    let body = String::from_utf8(r.body.clone()).unwrap();
                    r.body = body.replace("}}]}", "}},{}]}").into_bytes();
                },
                |u| matches!(u, Unverified::Body(_)),
            ),
            (
                "an amount twice",
                |r| {
                    let body = String::from_utf8(r.body.clone()).unwrap();
                    r.body = body
                        .replace("\"value\":1130", "\"value\":1,\"value\":1130")
                        .into_bytes();
                },
                |u| matches!(u, Unverified::Body(_)),
            ),
            (
                "no JSON",
                |r| r.body = b"{".to_vec(),
                |u| matches!(u, Unverified::Body(_)),
            ),
            (
                "a form",
                |r| r.body = b"a=1".to_vec(),
                |u| matches!(u, Unverified::Missing(_)),
            ),
        ],
    );
}

#[test]
fn a_message_of_another_topic_or_certificate_is_refused() {
    check(
        "sns",
        &[
            (
                "a certificate of another host",
                |r| {
                    let body = String::from_utf8(r.body.clone()).unwrap();
                    r.body = body
                        .replace("amazonaws.com/Simple", "example.com/Simple")
                        .into_bytes();
                },
                |u| matches!(u, Unverified::CertificateUrl(_)),
            ),
            (
                "an unknown type",
                |r| {
                    let body = String::from_utf8(r.body.clone()).unwrap();
                    r.body = body.replace("\"Notification\"", "\"Other\"").into_bytes();
                },
                |u| matches!(u, Unverified::Body(_)),
            ),
        ],
    );
    let vector = vector("sns");
    let request = vector.request();
    let other = scheme("sns", "arn:aws:sns:eu-west-1:123456789012:others");
    let refusal = verify(&other, &request, vector.now).unwrap_err();
    assert!(matches!(refusal, Unverified::OtherSubject(_)), "{refusal}");
    let scheme = scheme("sns", vector.secret);
    let refusal = scheme
        .verify(request.head(), &request.body, at(vector.now))
        .unwrap_err();
    assert_eq!(refusal, Unverified::CertificateMissing);
    let year_later = vector.now + 366 * 86_400;
    assert_eq!(
        verify(&scheme, &request, year_later),
        Err(Unverified::CertificateDates)
    );
}

#[test]
fn a_wrong_signature_takes_nothing_from_a_right_one() {
    let vector = vector("standard-webhooks");
    let scheme = scheme(vector.preset, vector.secret);
    let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let zeros = format!("v1,{}=", "A".repeat(43));
    for value in [
        format!("{zeros} {right}"),
        format!("{right} {zeros}"),
        format!("v1,*** v1,AAAA {right} v1, v1a,x v2,y"),
    ] {
        let mut request = vector.request();
        request.set("webhook-signature", &value);
        assert!(verify(&scheme, &request, vector.now).is_ok(), "{value}");
    }
}

#[test]
fn a_signature_in_the_query_is_there_once() {
    let parameter = &vector("pandadoc").url["https://hooks.example/in".len() + 1..];
    let scheme = scheme("pandadoc", vector("pandadoc").secret);
    let read = |query: &str| {
        let mut request = vector("pandadoc").request();
        request.url = format!("https://hooks.example/in?{query}");
        verify(&scheme, &request, NOW)
    };
    assert!(read(&format!("a=1&{parameter}&b")).is_ok());
    assert!(read(&parameter.replace("signature", "%73ignature")).is_ok());
    let twice = read(&format!("{parameter}&{parameter}"));
    assert!(matches!(twice, Err(Unverified::Doubled(_))), "{twice:?}");
    assert!(matches!(read("signature="), Err(Unverified::Empty(_))));
    assert!(matches!(read("signature=%ff"), Err(Unverified::NotText(_))));
    assert!(matches!(
        read(&format!("x#{parameter}")),
        Err(Unverified::Missing(_))
    ));
}

#[test]
fn a_body_that_is_not_read_may_have_any_form() {
    for (preset, is_accepted) in [("github", true), ("mailgun", false)] {
        let vector = vector(preset);
        let scheme = scheme(preset, vector.secret);
        let mut request = vector.request();
        request.body.splice(..0, *br#"{"signature":{},"signature":{}}"#);
        if let Some(signed) = request.signed_by(&scheme, at(NOW)) {
            request = signed;
        }
        let verified = verify(&scheme, &request, NOW);
        assert_eq!(verified.is_ok(), is_accepted, "{preset}: {verified:?}");
    }
}

#[test]
fn secrets_overlap_while_one_replaces_another() {
    let recipe = &Preset::named("github").unwrap().recipe;
    let old = SigningSecret {
        expires: Some(at(NOW)),
        ..secret("old", "one")
    };
    let new = SigningSecret {
        not_before: Some(at(NOW - 60)),
        ..secret("new", "two")
    };
    let scheme = Scheme::build(recipe, &[old, new]).unwrap();
    let plain = Request::new("https://hooks.example/", &[], b"{}");
    let signed_with = |text| {
        let alone = Scheme::build(recipe, &[secret("alone", text)]).unwrap();
        plain.signed_by(&alone, at(NOW)).unwrap()
    };
    for (text, now, expected) in [
        ("one", NOW - 61, Ok("old")),
        ("one", NOW - 1, Ok("old")),
        ("one", NOW, Err("old")),
        ("two", NOW - 61, Err("new")),
        ("two", NOW - 60, Ok("new")),
        ("two", NOW, Ok("new")),
    ] {
        match (verify(&scheme, &signed_with(text), now), expected) {
            (Ok(verified), Ok(label)) => assert_eq!(verified.label.as_str(), label),
            (Err(Unverified::Inactive { label, .. }), Err(expected)) => assert_eq!(label.as_str(), expected),
            (other, _) => panic!("{text} at {now}: {other:?}"),
        }
    }
}

#[test]
fn a_refusal_names_what_was_checked_and_no_secret() {
    let vector = vector("stripe");
    let mut request = vector.request();
    request.body.push(b'\n');
    let scheme = scheme("stripe", vector.secret);
    let text = verify(&scheme, &request, vector.now + 60)
        .unwrap_err()
        .to_string();
    for part in [
        "header:stripe-signature",
        "tried current",
        "`{timestamp}.{body}`",
        "32 bytes",
        "SHA-256 ",
        "2026-09-21 14:13:20 UTC (1 minute ago)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(vector.secret) && !format!("{scheme:?}").contains(vector.secret));
}

#[test]
fn a_new_vendor_is_one_recipe() {
    let recipe = Recipe {
        signature: vec![Place::parse("header:x-acme-signature").unwrap()],
        prefix: "v2=".to_owned(),
        encoding: Encoding::Base64Url,
        algorithm: Algorithm::HmacSha512,
        content: Content::Template(
            Template::parse("{method}\n{url}\n{header:x-acme-nonce}\n{query:a}\n{timestamp}\n{body}")
                .unwrap(),
        ),
        timestamp: Some(TimestampRecipe {
            place: TimestampPlace::At(Place::parse("header:x-acme-time").unwrap()),
            unit: TimeUnit::Milliseconds,
            tolerance: Some(Duration::from_secs(30)),
        }),
        id: Some(Place::parse("header:x-acme-id").unwrap()),
        ..Recipe::default()
    };
    let scheme = Scheme::build(&recipe, &[secret("only", "canary-acme")]).unwrap();
    // Computed with the hmac module of Python.
    let signature =
        "v2=CfcN-QbfkBRjQVtdzJabotLhoH47ACUfjV4Cv_FMJ_swTQODollW0Udz9iA77tkOd6Q1k7YoXyjF1uSMC-Q12A==";
    let headers = [
        ("x-acme-signature", signature),
        ("x-acme-nonce", "n-1"),
        ("x-acme-time", "1790000000000"),
        ("x-acme-id", "d-1"),
    ];
    let request = Request::new("https://hooks.example/in?a=%31", &headers, b"{}");
    let verified = verify(&scheme, &request, NOW).unwrap();
    assert_eq!(verified.id.as_deref(), Some("d-1"));
    for (name, value) in [("x-acme-nonce", "n-2"), ("x-acme-time", "1790000000001")] {
        let mut changed = request.clone();
        changed.set(name, value);
        assert!(verify(&scheme, &changed, NOW).is_err(), "{name}");
    }
    assert!(verify(&scheme, &request.without("x-acme-nonce"), NOW).is_err());
}

#[test]
fn a_recipe_that_cannot_work_is_refused() {
    let good = Preset::named("stripe").unwrap().recipe.clone();
    let one = [secret("one", "one")];
    let many: Vec<_> = (0..9).map(|number| secret(&format!("s{number}"), "x")).collect();
    let empty = Content::Template(Template::default());
    for (recipe, secrets) in [
        (
            Recipe {
                signature: Vec::new(),
                ..good.clone()
            },
            &one[..],
        ),
        (
            Recipe {
                content: empty,
                ..good.clone()
            },
            &one[..],
        ),
        (
            Recipe {
                timestamp: None,
                ..good.clone()
            },
            &one[..],
        ),
        (
            Recipe {
                encoding: Encoding::Plain,
                ..good.clone()
            },
            &one[..],
        ),
        (
            Recipe {
                algorithm: Algorithm::RsaCertificate,
                ..good.clone()
            },
            &one[..],
        ),
        (
            Recipe {
                separator: None,
                ..good.clone()
            },
            &one[..],
        ),
        (
            Recipe {
                content: Content::default(),
                ..good.clone()
            },
            &one[..],
        ),
        (good.clone(), &[]),
        (good.clone(), &many[..]),
        (good, &[secret("empty", "")]),
    ] {
        assert!(Scheme::build(&recipe, secrets).is_err(), "{recipe:?}");
    }
}

#[test]
fn a_token_in_the_head_needs_no_body() {
    for preset in Preset::all() {
        let vector = vector(preset.name);
        let is_head_alone = matches!(preset.name, "gitlab-token" | "postmark" | "dataverse");
        assert_eq!(
            scheme(preset.name, vector.secret).needs_body(),
            !is_head_alone,
            "{}",
            preset.name
        );
    }
}

#[test]
fn a_body_is_not_copied() {
    let recipe = &Preset::named("stripe").unwrap().recipe;
    let scheme = Scheme::build(recipe, &[secret("one", "one")]).unwrap();
    let plain = Request::new("https://hooks.example/", &[], &vec![b'a'; 1024 * 1024]);
    let signed = plain.signed_by(&scheme, at(NOW)).unwrap();
    let used = measure(|| {
        assert!(scheme.verify(signed.head(), &signed.body, at(NOW)).is_ok());
    });
    assert!(used.bytes_max < 4096, "{} bytes", used.bytes_max);
}

#[test]
fn a_hostile_request_takes_bounded_memory() {
    const BYTES: usize = 1024 * 1024;
    let keys: String = (0..60_000)
        .map(|number| format!("\"{number}\":[{number}],"))
        .collect();
    let bodies = [
        ("twilio", b"a&".repeat(BYTES / 2)),
        ("adyen", format!("{{\"{}\":1}}", "k".repeat(BYTES)).into_bytes()),
        (
            "adyen",
            format!("{{{keys}\"notificationItems\":[{}0]}}", "{},".repeat(100_000)).into_bytes(),
        ),
        ("adyen", b"[".repeat(BYTES)),
        (
            "business-central",
            format!("{{\"value\":[{}0]}}", "{\"clientState\":\"x\"},".repeat(50_000)).into_bytes(),
        ),
        (
            "mailgun",
            format!("{{\"signature\":{{\"token\":\"{}\"}}}}", "t".repeat(BYTES)).into_bytes(),
        ),
    ];
    for (preset, body) in bodies {
        let scheme = scheme(preset, vector(preset).secret);
        let request = Request {
            body,
            ..vector(preset).request()
        };
        let used = measure(|| assert!(verify(&scheme, &request, NOW).is_err(), "{preset}"));
        let most = 3 * request.body.len() as u64;
        assert!(used.bytes_max < most, "{preset}: {} bytes", used.bytes_max);
    }
}
