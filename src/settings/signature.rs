//! `[caller.signature]`: how a caller signs its requests: a preset, or every part of a recipe by itself.

mod table;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub(crate) use table::SignatureTable;

use crate::material::WebhookKey;
use crate::model::signature::{
    Algorithm, Content, Encoding, Habits, KeyForm, Place, Preset, Recipe, SECRETS_MAX, SecretOrigin,
    TimeUnit, TimestampPlace, TimestampRecipe,
};
use crate::model::{CallerName, Flaw, KeyLabel};
use crate::outbound::Trust;
use crate::settings::check::Check;
use crate::settings::kinds::At;
use crate::settings::route::RouteTable;
use crate::settings::signature::table::{PresetName, Separator, VendorHost};
use crate::settings::table::Table;
use crate::settings::{CallerSettings, CallersSettings, KeyPlace, QueryPass, RouteSettings, SecretSource};

/// The label of a secret that has none of its own.
const LABEL: &str = "signature";
/// Secrets that a route tries for a request without a key: each costs a hash of its body, and anybody may send one.
const TRIED_MAX: usize = 16;
/// A shared secret that is sent as it is can be guessed if it is shorter.
const TOKEN_BYTES_MIN: usize = 16;
/// Hosts of one vendor.
const HOSTS_MAX: usize = 16;
/// Signed bodies are held before their caller is known, in a quarter of the memory for held bodies, of which one address gets
/// half.
pub(super) const UNKNOWN_PART: u64 = 8;

/// How a caller signs.
#[derive(Debug, Clone)]
pub struct SignatureSettings {
    pub recipe: Arc<Recipe>,
    /// Which certificate authorities are trusted for hosts of the vendor.
    pub trust: Trust,
    /// The vendor, where a preset is used.
    pub vendor: Option<&'static str>,
    /// What is known of it.
    pub habits: Habits,
    pub secrets: Vec<SigningSecretSettings>,
}

/// One secret, with the place where it is read again.
#[derive(Debug, Clone)]
pub struct SigningSecretSettings {
    pub label: KeyLabel,
    pub source: SecretSource,
    pub not_before: Option<SystemTime>,
    pub expires: Option<SystemTime>,
}

impl Check<'_> {
    pub(super) fn signature(&mut self, table: &Table<SignatureTable>) -> Option<SignatureSettings> {
        let preset = table.preset.map(|PresetName(preset)| preset);
        let recipe = recipe_of(table, preset);
        if let Err(error) = recipe.check() {
            let flaw = Flaw::new(error.to_string());
            let flaw = match preset {
                None if table.from.is_none() => {
                    flaw.hint("set `preset` for a known vendor, or `from` and `template`")
                }
                _ => flaw,
            };
            if !["preset", "from", "template", "timestamp"]
                .iter()
                .any(|key| table.is_reported(key))
            {
                self.findings.mistake(table, flaw);
            }
            return None;
        }
        if table.tolerance.is_some() && recipe.timestamp.is_none() {
            let flaw = Flaw::new("there is no timestamp that `tolerance` could be about");
            self.findings
                .mistake(table.place("tolerance").unwrap_or(table.into()), flaw);
        }
        let needs_host = |key| {
            let flaw = Flaw::new(format!(
                "nothing is fetched from the vendor, so `{key}` is of no use"
            ));
            flaw.hint(format!(
                "remove it; `{key}` goes with the presets \"sns\" and \"paypal\""
            ))
        };
        for key in ["vendor_hosts", "ca_file"] {
            if let Some(place) = table.place(key)
                && recipe.certificate.is_none()
            {
                self.findings.mistake(place, needs_host(key));
            }
        }
        let is_too_many = |hosts: &Vec<VendorHost>| hosts.is_empty() || hosts.len() > HOSTS_MAX;
        if let Some(place) = table.place("vendor_hosts")
            && table.vendor_hosts.as_ref().is_some_and(is_too_many)
        {
            let flaw = Flaw::new(format!("`vendor_hosts` has 1 to {HOSTS_MAX} hosts"));
            self.findings
                .mistake(place, flaw.hint("remove it to use those of the preset"));
        }
        let trust = self.trust(table.ca_file.as_ref());
        let secrets = self.signing_secrets(table, &recipe);
        Some(SignatureSettings {
            recipe: Arc::new(recipe),
            trust,
            vendor: preset.map(|preset| preset.name),
            habits: preset.map(|preset| preset.habits).unwrap_or_default(),
            secrets,
        })
    }

    fn signing_secrets(
        &mut self,
        table: &Table<SignatureTable>,
        recipe: &Recipe,
    ) -> Vec<SigningSecretSettings> {
        let mut secrets = Vec::new();
        match (&table.secret, table.secrets.as_slice()) {
            // They are enrolled.
            (None, []) if recipe.secrets == SecretOrigin::Handshake => {}
            (None, []) => {
                let hint = "name its place: secret = \"env:NAME\"";
                table.missing("secret", hint, &mut self.findings);
            }
            (Some(value), []) => {
                let label = KeyLabel::parse(LABEL).ok();
                secrets.extend(
                    label.and_then(|label| self.signing_secret((label, value), (None, None), recipe)),
                );
            }
            (Some(value), [first, ..]) => {
                let flaw = Flaw::new("a signature has one `secret` or a list of `secrets`");
                self.findings.clash(value, flaw, first, "the list begins here");
            }
            (None, list) => {
                if list.len() > SECRETS_MAX {
                    let flaw = Flaw::new(format!("there are more than {SECRETS_MAX} secrets"));
                    self.findings.mistake(table, flaw);
                }
                for one in list {
                    let hint = "give the secret a label that distinguishes it in logs";
                    let label = one.require(("label", &one.label), hint, &mut self.findings);
                    let hint = "name its place: secret = \"env:NAME\"";
                    let value = one.require(("secret", &one.secret), hint, &mut self.findings);
                    let (Some(label), Some(value)) = (label, value) else {
                        continue;
                    };
                    let dates = (one.not_before, one.expires);
                    secrets.extend(self.signing_secret(((**label).clone(), value), dates, recipe));
                }
            }
        }
        secrets
    }

    fn signing_secret(
        &mut self,
        (label, value): (KeyLabel, &At<String>),
        (not_before, expires): (Option<SystemTime>, Option<SystemTime>),
        recipe: &Recipe,
    ) -> Option<SigningSecretSettings> {
        let source = self.secret_at_start("secret", value)?;
        if let Some(secret) = source.known() {
            let key = WebhookKey::build(secret, recipe.algorithm, recipe.key_form, &recipe.key_prefix);
            let flaw = key
                .map(|_| ())
                .map_err(|what| Flaw::new(format!("the secret {what}")));
            self.findings.keep(value, flaw)?;
            if recipe.algorithm == Algorithm::Token && secret.expose().len() < TOKEN_BYTES_MIN {
                let flaw = Flaw::new(format!(
                    "the secret has fewer than {TOKEN_BYTES_MIN} bytes and is sent as it is, so it can be guessed"
                ));
                self.findings.warn(
                    value,
                    flaw.hint("make one with `openssl rand -hex 32` and give it to the vendor"),
                );
            }
        }
        if expires.is_some_and(|expires| expires <= self.environment.now()) {
            self.findings
                .warn(value, Flaw::new(format!("the secret \"{label}\" has expired")));
        }
        Some(SigningSecretSettings {
            label,
            source,
            not_before,
            expires,
        })
    }

    /// What routes must say so that signatures of their callers can be checked.
    pub(super) fn signed_routes(
        &mut self,
        tables: &[Table<RouteTable>],
        routes: &[RouteSettings],
        callers: &[CallerSettings],
        held_budget: u64,
    ) {
        let signing = callers.iter().filter(|caller| caller.signature.is_some());
        let signing: HashMap<_, _> = signing.map(|caller| (&caller.name, caller)).collect();
        if signing.is_empty() {
            return;
        }
        let tables: HashMap<_, _> = tables
            .iter()
            .filter_map(|table| Some((table.name.as_ref()?.as_str(), table)))
            .collect();
        let keyed = callers.iter().filter(|caller| !caller.keys.is_empty());
        let keyed: HashSet<_> = keyed.map(|caller| &caller.name).collect();
        for route in routes {
            let CallersSettings::Named(names) = &route.callers else {
                continue;
            };
            let Some(table) = tables.get(route.name.as_str()) else {
                continue;
            };
            let signers = names.iter().filter_map(|name| signing.get(name));
            let signers = signers.filter_map(|caller| Some((*caller, caller.signature.as_ref()?)));
            let signers: Vec<_> = signers.collect();
            let alone = signers.iter().filter(|(caller, _)| caller.keys.is_empty());
            let tried = alone.map(|(_, signature)| match signature.recipe.secrets {
                SecretOrigin::Settings => signature.secrets.len(),
                SecretOrigin::Handshake => SECRETS_MAX,
            });
            let tried: usize = tried.sum();
            if tried > TRIED_MAX {
                let flaw = Flaw::new(format!(
                    "the route would try {tried} secrets for a request without a key; at most {TRIED_MAX} are tried"
                ));
                let hint = "give some of its callers a route of their own, or keys";
                self.findings.mistake(*table, flaw.hint(hint));
            }
            let Some((caller, _)) = signers.first() else {
                continue;
            };
            let room = held_budget / UNKNOWN_PART;
            let (accepted, _) = route.accepted_bytes_max(callers);
            if accepted > room {
                let flaw = Flaw::new(format!(
                    "bodies of caller \"{}\" are held before their signature is checked, in an eighth of `bodies.held_budget`, \
                     which is {room} bytes; the route accepts {accepted}",
                    caller.name
                ));
                let hint = "lower `body_size_max` of the route, or raise `held_budget`";
                self.findings.mistake(
                    table.place("body_size_max").unwrap_or((*table).into()),
                    flaw.hint(hint),
                );
            }
            let has_keys = names.iter().any(|name| keyed.contains(name));
            for (caller, signature) in signers {
                self.signer_of_route((table, route), &caller.name, &signature.recipe, has_keys);
            }
        }
    }

    fn signer_of_route(
        &mut self,
        (table, route): (&Table<RouteTable>, &RouteSettings),
        name: &CallerName,
        recipe: &Recipe,
        has_keys: bool,
    ) {
        if recipe.covers_url() && route.public_url.is_none() {
            let flaw = Flaw::new(format!(
                "caller \"{name}\" signs the address that it calls, and the route does not say which one that is"
            ));
            let hint = "set public_url = \"https://HOST\" as callers write it, or `host`";
            self.findings.mistake(table, flaw.hint(hint));
        }
        let in_authorization = recipe.signature.contains(&Place::header("authorization"));
        let reads_it = route
            .key_places
            .iter()
            .any(|place| matches!(place, KeyPlace::Authorization | KeyPlace::Basic));
        if in_authorization && has_keys && reads_it {
            let flaw = Flaw::new(format!(
                "caller \"{name}\" signs in `Authorization`, where the route reads keys of other callers"
            ));
            let hint = "set key_from = [\"header:x-api-key\"], or give the caller a route of its own";
            self.findings
                .mistake(table.place("key_from").unwrap_or(table.into()), flaw.hint(hint));
        }
        let passed = recipe
            .signature
            .iter()
            .find_map(|place| match (place, &route.query) {
                (Place::Query(name), QueryPass::All) => Some(name),
                (Place::Query(name), QueryPass::Named(names)) => {
                    Some(name).filter(|name| names.contains(name))
                }
                _ => None,
            });
        if let Some(parameter) = passed {
            let flaw = Flaw::new(format!(
                "the parameter \"{parameter}\" has the signature of caller \"{name}\" and must not go on"
            ));
            self.findings.mistake(
                table.place("query").unwrap_or(table.into()),
                flaw.hint("list the parameters that pass in `query`"),
            );
        }
    }
}

fn recipe_of(table: &SignatureTable, preset: Option<&Preset>) -> Recipe {
    let mut recipe = preset.map(|preset| preset.recipe.clone()).unwrap_or_default();
    if let Some(places) = &table.from {
        recipe.signature.clone_from(places);
    }
    if let Some(prefix) = &table.prefix {
        recipe.prefix.clone_from(prefix);
    }
    if let Some(Separator(separator)) = table.separator {
        recipe.separator = Some(separator);
    }
    recipe.algorithm = table.algorithm.unwrap_or(recipe.algorithm);
    recipe.encoding = match (table.encoding, recipe.algorithm, preset) {
        (Some(encoding), ..) => encoding,
        (None, Algorithm::Token, None) => Encoding::Plain,
        (None, ..) => recipe.encoding,
    };
    if let Some(template) = &table.template {
        recipe.content = Content::Template(template.clone());
    }
    let place = match (&table.timestamp, &table.timestamp_prefix) {
        (Some(place), _) => Some(TimestampPlace::At(place.clone())),
        (None, Some(prefix)) => Some(TimestampPlace::Beside(prefix.clone())),
        (None, None) => None,
    };
    const TOLERANCE: Duration = Duration::from_secs(300);
    if let Some(place) = place {
        recipe.timestamp = Some(TimestampRecipe {
            place,
            unit: TimeUnit::Seconds,
            tolerance: Some(TOLERANCE),
        });
    }
    if let Some(timestamp) = &mut recipe.timestamp {
        timestamp.unit = table.timestamp_unit.unwrap_or(timestamp.unit);
        timestamp.tolerance = table.tolerance.or(timestamp.tolerance);
    }
    recipe.id = table.id.clone().or(recipe.id);
    recipe.key_form = match (table.secret_form, recipe.algorithm, preset) {
        (Some(form), ..) => form,
        (None, Algorithm::Ed25519 | Algorithm::EcdsaP256, None) => KeyForm::Public,
        (None, ..) => recipe.key_form,
    };
    if let Some(prefix) = &table.secret_prefix {
        recipe.key_prefix.clone_from(prefix);
    }
    if let (Some(certificate), Some(hosts)) = (&mut recipe.certificate, &table.vendor_hosts) {
        certificate.hosts = hosts.iter().map(|VendorHost(host)| host.clone()).collect();
    }
    recipe
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Encoding};
    use crate::model::signature::{Preset, TimestampPlace};
    use crate::settings::SignatureSettings;
    use crate::settings::sample::Sample;

    fn sample(lines: &str) -> Sample {
        let caller = format!("name = \"acme\"\n[caller.signature]\n{lines}");
        Sample::default()
            .with("caller", &caller)
            .replace("anonymous = true", "callers = [\"acme\"]")
    }

    fn signature(lines: &str) -> SignatureSettings {
        sample(lines).config().callers.remove(0).signature.unwrap()
    }

    #[test]
    fn three_lines_are_enough_for_a_vendor_with_a_preset() {
        for preset in Preset::all() {
            let lines = format!("preset = \"{}\"\nsecret = \"env:SECRET\"", preset.name);
            let sample =
                sample(&lines).replace("path = ", "public_url = \"https://hooks.example.com\"\npath = ");
            // Some have public keys or keys in base64, which the secret of the sample is not.
            let mistakes = sample.mistakes();
            assert!(
                mistakes
                    .iter()
                    .all(|mistake| mistake.starts_with("the secret is")),
                "{lines}: {mistakes:?}"
            );
        }
        assert_eq!(
            *signature("preset = \"github\"\nsecret = \"env:SECRET\"").recipe,
            Preset::named("github").unwrap().recipe
        );
    }

    #[test]
    fn a_part_of_a_preset_can_be_another() {
        let recipe = signature(
            "preset = \"stripe\"\nsecret = \"env:SECRET\"\ntolerance = \"1m\"\nencoding = \"base64\"",
        )
        .recipe;
        assert_eq!(
            recipe.timestamp.as_ref().unwrap().tolerance.unwrap().as_secs(),
            60
        );
        assert_eq!(recipe.encoding, Encoding::Base64);
        let token =
            signature("from = [\"header:x-token\"]\nalgorithm = \"token\"\nsecret = \"env:SECRET\"").recipe;
        assert_eq!(
            (token.algorithm, token.encoding),
            (Algorithm::Token, Encoding::Plain)
        );
        let beside = signature(
            "from = [\"header:x-sign\"]\nseparator = \",\"\ntimestamp_prefix = \"t=\"\ntemplate = \"{timestamp}{body}\"\n\
             secret = \"env:SECRET\"",
        );
        let timestamp = beside.recipe.timestamp.clone().unwrap();
        assert_eq!(timestamp.place, TimestampPlace::Beside("t=".to_owned()));
    }

    #[test]
    fn what_cannot_be_checked_is_a_mistake() {
        let secret = "secret = \"env:SECRET\"\n";
        for (lines, what) in [
            (
                format!("preset = \"githib\"\n{secret}"),
                "there is no preset of this name",
            ),
            (
                format!("preset = \"github\"\n{secret}vendor_hosts = [\"sns.eu-west-1.amazonaws.com\"]"),
                "nothing is fetched from the vendor, so `vendor_hosts` is of no use",
            ),
            (
                format!("preset = \"sns\"\n{secret}vendor_hosts = []"),
                "`vendor_hosts` has 1 to 16 hosts",
            ),
            (secret.to_owned(), "nothing says where the signature is"),
            ("preset = \"github\"".to_owned(), "`secret` is missing"),
            (
                "preset = \"github\"\nsecret = \"plain-text\"".to_owned(),
                "`secret` must not be written into the settings file",
            ),
            (
                format!("preset = \"github\"\n{secret}tolerance = \"1m\""),
                "there is no timestamp that `tolerance` could be about",
            ),
            (
                format!("preset = \"sendgrid\"\n{secret}"),
                "the secret is no public key in PEM, base64 or hex",
            ),
            (
                format!("from = [\"x-signature\"]\n{secret}"),
                "this is not a place in a request",
            ),
            (
                format!("from = [\"header:x\"]\ntemplate = \"{{time}}\"\n{secret}"),
                "unknown piece of a template",
            ),
            (
                format!("from = [\"header:x\"]\ntemplate = \"{{timestamp}}{{body}}\"\n{secret}"),
                "the template has {timestamp}, but nothing says where it is",
            ),
            (
                format!("from = [\"header:x\"]\nseparator = \"ab\"\n{secret}"),
                "a separator is one character that is no letter and no digit",
            ),
        ] {
            assert_eq!(sample(&lines).mistakes(), [what], "{lines}");
        }
    }

    #[test]
    fn hosts_of_a_vendor_are_written_as_its_addresses_have_them() {
        let hosts = |hosts: &str| {
            sample(&format!(
                "preset = \"sns\"\nsecret = \"env:SECRET\"\nvendor_hosts = [{hosts}]"
            ))
        };
        let config = hosts("\"sns.eusc-de-east-1.amazonaws.eu\", \"localhost:4566\"").config();
        let certificate = config.callers[0]
            .signature
            .as_ref()
            .unwrap()
            .recipe
            .certificate
            .clone();
        assert_eq!(
            certificate.unwrap().hosts,
            ["sns.eusc-de-east-1.amazonaws.eu", "localhost:4566"]
        );
        for bad in [
            "https://sns.eu-west-1.amazonaws.com",
            "http://sns.eu-west-1.amazonaws.com",
            "sns.*.amazonaws.com",
            "SNS.eu-west-1.amazonaws.com",
            "user@sns.eu-west-1.amazonaws.com",
            "sns.eu-west-1.amazonaws.com/",
            "sns.eu-west-1.amazonaws.com:443",
            "sns.eu-west-1.amazonaws.com:08",
            "sns.eu-west-1.amazonaws.com.",
            "[::1]",
            "",
        ] {
            let mistakes = hosts(&format!("{bad:?}")).mistakes();
            assert_eq!(
                mistakes,
                ["this is not a host as the addresses of a vendor have it"],
                "{bad}"
            );
        }
    }

    #[test]
    fn a_route_must_allow_what_its_signatures_need() {
        let twilio = sample("preset = \"twilio\"\nsecret = \"env:SECRET\"");
        assert_eq!(
            twilio.mistakes(),
            ["caller \"acme\" signs the address that it calls, and the route does not say which one that is"]
        );
        let github = || sample("preset = \"github\"\nsecret = \"env:SECRET\"");
        let large = github()
            .replace("path = ", "body_size_max = \"9 MiB\"\npath = ")
            .mistakes();
        assert!(
            large.len() == 1 && large[0].contains("which is 8388608 bytes; the route accepts 9437184"),
            "{large:?}"
        );
        let teams = "preset = \"teams\"\nsecret = \"env:SECRET\"\n[[caller]]\nname = \"keyed\"\n[[caller.key]]\nlabel = \"a\"\n\
                     digest = \"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\"";
        let both = || {
            let sample = sample(teams).replace("callers = [\"acme\"]", "callers = [\"acme\", \"keyed\"]");
            sample.variable("SECRET", "Y2FuYXJ5")
        };
        let mistakes = both().mistakes();
        assert_eq!(
            mistakes,
            ["caller \"acme\" signs in `Authorization`, where the route reads keys of other callers"]
        );
        let apart = both().replace("path = ", "key_from = [\"header:x-api-key\"]\npath = ");
        assert!(apart.mistakes().is_empty());
        let query = sample("from = [\"query:signature\"]\nsecret = \"env:SECRET\"")
            .replace("path = ", "query = [\"signature\"]\npath = ");
        assert_eq!(
            query.mistakes(),
            ["the parameter \"signature\" has the signature of caller \"acme\" and must not go on"]
        );
    }
}
