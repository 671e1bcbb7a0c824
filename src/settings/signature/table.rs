//! `[caller.signature]` as it is written.

use std::time::{Duration, SystemTime};

use crate::model::host::{read_port, split_port};
use crate::model::signature::{Algorithm, Encoding, KeyForm, Place, Preset, Template, TimeUnit};
use crate::model::{Flaw, Host, KeyLabel};
use crate::settings::kinds::{ANY, At, choice, word};
use crate::settings::near::closest;
use crate::settings::scalars::{HOUR, SECOND};
use crate::settings::table::{Table, table};

table! {
    /// How a caller signs its requests.
    pub(crate) struct SignatureTable {
        /// A vendor whose webhooks are known: "github", "stripe". Every other key changes a part of it.
        preset: Option<PresetName> = None, ANY, Reload;
        /// Where the signature is: "header:NAME", "query:NAME" or "body:/POINTER".
        from: Option<Vec<Place>> = None, ANY, Reload;
        /// What precedes it: "sha256=".
        prefix: Option<String> = None, ANY, Reload;
        /// Character between several signatures, or between a signature and its timestamp, in one value.
        separator: Option<Separator> = None, ANY, Reload;
        /// Algorithm of the signature; "token" where the value is the secret itself.
        algorithm: Option<Algorithm> = None, ANY, Reload;
        /// Encoding of the signature; default: hex.
        encoding: Option<Encoding> = None, ANY, Reload;
        /// What is signed, of {body}, {timestamp}, {id}, {url}, {method}, {header:NAME}, {query:NAME}; default: "{body}".
        template: Option<Template> = None, ANY, Reload;
        /// Where the timestamp is; one beside the signature in the same value has `timestamp_prefix` in its place.
        timestamp: Option<Place> = None, ANY, Reload;
        /// What precedes a timestamp beside the signature: "t=".
        timestamp_prefix: Option<String> = None, ANY, Reload;
        /// Unit of the timestamp; default: s.
        timestamp_unit: Option<TimeUnit> = None, ANY, Reload;
        /// How far the timestamp may be from the clock of this machine; default: 5m.
        tolerance: Option<Duration> = None, SECOND..=HOUR, Reload;
        /// Where the id of the delivery is.
        id: Option<Place> = None, ANY, Reload;
        /// How secrets are written; default: text.
        secret_form: Option<KeyForm> = None, ANY, Reload;
        /// What precedes a secret and is no part of it: "whsec_".
        secret_prefix: Option<String> = None, ANY, Reload;
        /// The secret, or public key; a reference, "env:NAME", "file:PATH" or "keyvault:ADDRESS".
        secret: Option<At<String>> = None, ANY, Reload;
        /// Several of them, while one replaces another; in place of `secret`.
        secrets: Vec<Table<SigningSecretTable>> = Vec::new(), ANY, Reload;
        /// Hosts from which the vendor's certificate is fetched, in place of those of the preset: "HOST" or "HOST:PORT".
        vendor_hosts: Option<Vec<VendorHost>> = None, ANY, Reload;
        /// PEM file with the certificate authorities trusted for these hosts, in place of the system's.
        ca_file: Option<At<String>> = None, ANY, Reload;
    }
}

table! {
    /// One of several secrets.
    pub(crate) struct SigningSecretTable {
        /// Distinguishes it in logs.
        label: Option<At<KeyLabel>> = None, ANY, Reload;
        /// The secret, or public key; a reference.
        secret: Option<At<String>> = None, ANY, Reload;
        /// Signatures are refused before this moment.
        not_before: Option<SystemTime> = None, ANY, Reload;
        /// Signatures are refused from this moment on.
        expires: Option<SystemTime> = None, ANY, Reload;
    }
}

/// A preset by its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PresetName(pub(super) &'static Preset);

/// A host of a vendor, with its port if that is not 443.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VendorHost(pub(super) String);

/// One character, as it is written into a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Separator(pub(super) char);

word! {
    PresetName: read_preset, ["github", "stripe"];
    Separator: read_separator, [","];
    VendorHost: read_vendor_host, ["sns.eu-central-1.amazonaws.com"];
    Place: Place::parse, ["header:x-signature"];
    Template: Template::parse, ["{timestamp}.{body}"];
}

choice!(Algorithm: Self::HmacSha256 => "hmac-sha256", Self::HmacSha1 => "hmac-sha1", Self::HmacSha512 => "hmac-sha512",
    Self::Ed25519 => "ed25519", Self::EcdsaP256 => "ecdsa-p256", Self::Token => "token");
choice!(Encoding: Self::Hex => "hex", Self::Base64 => "base64", Self::Base64Url => "base64url", Self::Plain => "plain");
choice!(TimeUnit: Self::Seconds => "s", Self::Milliseconds => "ms", Self::Rfc3339 => "rfc3339");
choice!(KeyForm: Self::Text => "text", Self::Hex => "hex", Self::Base64 => "base64", Self::Public => "public");

fn read_preset(text: &str) -> Result<PresetName, Flaw> {
    if let Some(preset) = Preset::named(text) {
        return Ok(PresetName(preset));
    }
    let names = Preset::all().iter().map(|preset| preset.name);
    let flaw = Flaw::new("there is no preset of this name");
    Err(match closest(text, names) {
        Some(meant) => flaw.hint(format!("did you mean \"{meant}\"?")),
        None => flaw.hint("docs/vendors.md lists all; for others leave `preset` out and set `from`, `template` and the like"),
    })
}

fn read_separator(text: &str) -> Result<Separator, Flaw> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(char), None) if char.is_ascii() && !char.is_ascii_alphanumeric() => Ok(Separator(char)),
        _ => Err(
            Flaw::new("a separator is one character that is no letter and no digit")
                .hint("write for example \",\""),
        ),
    }
}

fn read_vendor_host(text: &str) -> Result<VendorHost, Flaw> {
    let (host, port) = split_port(text);
    let is_port =
        |port: &str| read_port(port).is_some_and(|number| number != 443 && number.to_string() == port);
    let is_written = |read: &Host| **read == *host && !host.starts_with('[');
    let hint = "write the host of the address in lower case, its port only if it is not 443, and nothing else: \
                \"sns.eu-central-1.amazonaws.com\"";
    match Host::parse(host) {
        Ok(read) if is_written(&read) && port.is_none_or(is_port) => Ok(VendorHost(text.to_owned())),
        _ => Err(Flaw::new("this is not a host as the addresses of a vendor have it").hint(hint)),
    }
}
