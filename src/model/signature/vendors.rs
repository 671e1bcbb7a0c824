//! The presets, one row each. A row without more is HMAC-SHA256 in hex over the body, without timestamp and id. Habits are
//! left out where they are not known.

use std::sync::LazyLock;
use std::time::Duration;

use crate::model::signature::place::Place;
use crate::model::signature::preset::{Habits, Preset};
use crate::model::signature::recipe::{
    Algorithm, CertificateRecipe, Content, Encoding, KeyForm, Recipe, SecretOrigin, TimeUnit,
};
use crate::model::signature::shapes::{
    SVIX, TOLERANCE, WEBHOOK, base64, basic, hex, places, standard_webhooks, timed, token, version_0,
};

/// Where a repetition has the first timestamp.
const ANY_AGE: Option<Duration> = None;

const ADYEN_PORTS: &[u16] = &[443, 8443, 8843];

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(presets);

impl Preset {
    pub fn all() -> &'static [Self] {
        &PRESETS
    }

    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }
}

fn presets() -> Vec<Preset> {
    [
        code(),
        commerce(),
        messages(),
        social(),
        office(),
        microsoft(),
        standard(),
    ]
    .concat()
}

/// Where code and tickets are kept.
fn code() -> Vec<Preset> {
    let github = silent().largest(25 * 1024 * 1024).answer(seconds(10));
    vec![
        row(
            "github",
            hex("x-hub-signature-256", "sha256=").id("header:x-github-delivery"),
            github.retries(Duration::ZERO).on_429(false),
        ),
        row("gitlab", standard_webhooks(WEBHOOK), silent().answer(seconds(10))),
        row(
            "gitlab-token",
            token("header:x-gitlab-token").id("header:idempotency-key"),
            silent().answer(seconds(10)),
        ),
        row(
            "atlassian",
            hex("x-hub-signature", "sha256=").id("header:x-atlassian-webhook-identifier"),
            silent().on_429(true),
        ),
        row(
            "bitbucket",
            hex("x-hub-signature", "sha256=").id("header:x-request-uuid"),
            silent().answer(seconds(10)),
        ),
        row(
            "linear",
            hex("linear-signature", "")
                .time("body:/webhookTimestamp", TimeUnit::Milliseconds, Some(minutes(1)))
                .id("header:linear-delivery"),
            silent().answer(seconds(5)).retries(minutes(1 + 60 + 6 * 60)),
        ),
        row(
            "pagerduty",
            hex("x-pagerduty-signature", "v1=")
                .several(',')
                .id("body:/event/id"),
            silent(),
        ),
        row(
            "zendesk",
            base64("x-zendesk-webhook-signature", "")
                .covers("{timestamp}{body}")
                .time(
                    "header:x-zendesk-webhook-signature-timestamp",
                    TimeUnit::Rfc3339,
                    Some(TOLERANCE),
                )
                .id("header:x-zendesk-webhook-invocation-id"),
            silent().answer(seconds(12)).on_429(true),
        ),
    ]
}

/// Shops and payments.
fn commerce() -> Vec<Preset> {
    vec![
        row(
            "stripe",
            timed("stripe-signature", "v1=", ',', "t=", TimeUnit::Seconds, TOLERANCE).id("body:/id"),
            silent().retries(days(3)).on_429(true),
        ),
        row(
            "shopify",
            base64("x-shopify-hmac-sha256", "").id("header:x-shopify-webhook-id"),
            silent().answer(seconds(5)).retries(hours(4)).on_429(true),
        ),
        row(
            "square",
            base64("x-square-hmacsha256-signature", "")
                .covers("{url}{body}")
                .id("body:/event_id"),
            silent().answer(seconds(10)).retries(hours(24)),
        ),
        row("adyen", adyen(), silent().answer(seconds(10)).ports(ADYEN_PORTS)),
        row(
            "adyen-platform",
            base64("hmacsignature", "").key(KeyForm::Hex, ""),
            silent().answer(seconds(10)).ports(ADYEN_PORTS),
        ),
        row(
            "woocommerce",
            base64("x-wc-webhook-signature", "").id("header:x-wc-webhook-delivery-id"),
            silent().ports(&[443, 8080]),
        ),
        row(
            "authorize-net",
            hex("x-anet-signature", "sha512=")
                .with(Algorithm::HmacSha512)
                .id("body:/notificationId"),
            silent(),
        ),
        row(
            "paddle",
            timed(
                "paddle-signature",
                "h1=",
                ';',
                "ts=",
                TimeUnit::Seconds,
                TOLERANCE,
            )
            .covers("{timestamp}:{body}")
            .id("body:/event_id"),
            silent().answer(seconds(5)).retries(days(3)),
        ),
        row(
            "razorpay",
            hex("x-razorpay-signature", "").id("header:x-razorpay-event-id"),
            silent().answer(seconds(5)).retries(hours(24)),
        ),
        row("paypal", paypal(), silent().retries(days(3))),
        row(
            "xero",
            base64("x-xero-signature", ""),
            silent().answer(seconds(5)).retries(hours(24)).ports(&[443]),
        ),
    ]
}

/// Mail, chat, calls and meetings.
fn messages() -> Vec<Preset> {
    let twilio = |name, algorithm| {
        let recipe = base64("x-twilio-signature", "")
            .with(algorithm)
            .id("header:i-twilio-idempotency-token");
        let recipe = Recipe {
            content: Content::Twilio,
            ..recipe
        };
        row(name, recipe, silent().answer(seconds(15)))
    };
    vec![
        row(
            "slack",
            version_0("x-slack-signature", "header:x-slack-request-timestamp").id("body:/event_id"),
            silent().answer(seconds(3)),
        ),
        row(
            "zoom",
            version_0("x-zm-signature", "header:x-zm-request-timestamp"),
            silent().answer(seconds(3)),
        ),
        twilio("twilio", Algorithm::HmacSha1),
        // Where a rule for webhooks signs with a key of its own.
        twilio("twilio-sha256", Algorithm::HmacSha256),
        // It does not say whether repetitions have a new timestamp.
        row(
            "sendgrid",
            base64("x-twilio-email-event-webhook-signature", "")
                .with(Algorithm::EcdsaP256)
                .key(KeyForm::Public, "")
                .covers("{timestamp}{body}")
                .time(
                    "header:x-twilio-email-event-webhook-timestamp",
                    TimeUnit::Seconds,
                    Some(hours(24)),
                ),
            silent().retries(hours(24)),
        ),
        row("mailgun", mailgun(), silent().retries(hours(8)).on_429(true)),
        row("postmark", basic(), silent()),
        row(
            "intercom",
            hex("x-hub-signature", "sha1=")
                .with(Algorithm::HmacSha1)
                .id("body:/id"),
            silent().answer(seconds(5)),
        ),
        row("line", base64("x-line-signature", ""), silent()),
        row(
            "discord",
            hex("x-signature-ed25519", "")
                .with(Algorithm::Ed25519)
                .key(KeyForm::Public, "")
                .covers("{timestamp}{body}")
                .time("header:x-signature-timestamp", TimeUnit::Seconds, Some(TOLERANCE))
                .id("body:/id"),
            silent().answer(seconds(3)),
        ),
    ]
}

/// Networks of people, and what they watch.
fn social() -> Vec<Preset> {
    vec![
        row(
            "meta",
            hex("x-hub-signature-256", "sha256="),
            silent().retries(hours(36)),
        ),
        row("x", base64("x-twitter-webhooks-signature", "sha256="), silent()),
        row(
            "twitch",
            hex("twitch-eventsub-message-signature", "sha256=")
                .covers("{id}{timestamp}{body}")
                .time(
                    "header:twitch-eventsub-message-timestamp",
                    TimeUnit::Rfc3339,
                    Some(minutes(10)),
                )
                .id("header:twitch-eventsub-message-id"),
            silent(),
        ),
    ]
}

/// Customers, forms, documents and accounts.
fn office() -> Vec<Preset> {
    vec![
        row(
            "hubspot",
            base64("x-hubspot-signature-v3", "")
                .covers("{method}{url-decoded}{body}{timestamp}")
                .time(
                    "header:x-hubspot-request-timestamp",
                    TimeUnit::Milliseconds,
                    Some(minutes(5)),
                ),
            silent().answer(seconds(5)).retries(hours(24)),
        ),
        row("docusign", docusign(), silent().answer(seconds(100))),
        row(
            "calendly",
            timed(
                "calendly-webhook-signature",
                "v1=",
                ',',
                "t=",
                TimeUnit::Seconds,
                minutes(3),
            ),
            silent().retries(hours(24)),
        ),
        row(
            "typeform",
            base64("typeform-signature", "sha256=").id("body:/event_id"),
            silent().answer(seconds(30)).on_429(true),
        ),
        row(
            "workos",
            timed(
                "workos-signature",
                "v1=",
                ',',
                "t=",
                TimeUnit::Milliseconds,
                minutes(3),
            )
            .id("body:/id"),
            silent().retries(days(3)),
        ),
        row(
            "pandadoc",
            Recipe {
                signature: places(["query:signature"]),
                ..Recipe::default()
            },
            silent(),
        ),
        row("asana", asana(), silent().answer(seconds(10)).retries(hours(24))),
        row("sns", sns(), silent().answer(seconds(15)).on_429(true)),
    ]
}

/// Microsoft, which mostly sends a secret instead of a signature.
fn microsoft() -> Vec<Preset> {
    vec![
        row(
            "teams",
            base64("authorization", "HMAC ")
                .key(KeyForm::Base64, "")
                .id("body:/id"),
            silent(),
        ),
        row("azure-devops", basic().id("body:/id"), silent()),
        // The authentication `WebhookKey`.
        row(
            "dataverse",
            token("query:code"),
            silent()
                .largest(256 * 1024)
                .answer(seconds(60))
                .on_429(false)
                .ports(&[443]),
        ),
        row(
            "business-central",
            token("body:/value/*/clientState"),
            silent().retries(hours(36)).on_429(true),
        ),
        row(
            "graph",
            token("body:/value/*/clientState"),
            silent().retries(hours(4)),
        ),
    ]
}

/// Standard Webhooks, and vendors that follow it.
fn standard() -> Vec<Preset> {
    let svix = |name| row(name, standard_webhooks(SVIX), silent().answer(seconds(15)));
    let ed25519 = standard_webhooks(WEBHOOK)
        .with(Algorithm::Ed25519)
        .key(KeyForm::Public, "whpk_");
    vec![
        row("standard-webhooks", standard_webhooks(WEBHOOK), silent()),
        row(
            "standard-webhooks-ed25519",
            Recipe {
                prefix: "v1a,".to_owned(),
                ..ed25519
            },
            silent(),
        ),
        row("openai", standard_webhooks(WEBHOOK), silent().retries(hours(72))),
        svix("svix"),
        svix("clerk"),
        svix("resend"),
    ]
}

fn adyen() -> Recipe {
    const SIGNATURE: &str = "body:/notificationItems/0/NotificationRequestItem/additionalData/hmacSignature";
    Recipe {
        signature: places([SIGNATURE]),
        encoding: Encoding::Base64,
        content: Content::Adyen,
        ..Recipe::default().key(KeyForm::Hex, "")
    }
}

/// Covers nothing of the event: anyone who saw one signature can send any body with it, until its token is known. It is
/// accepted for as long as deliveries are repeated.
fn mailgun() -> Recipe {
    Recipe {
        signature: places(["body:/signature/signature"]),
        ..Recipe::default()
    }
    .covers("{body:/signature/timestamp}{body:/signature/token}")
    .time("body:/signature/timestamp", TimeUnit::Seconds, Some(hours(8)))
    .id("body:/signature/token")
}

/// One signature for each of the keys that are in force.
fn docusign() -> Recipe {
    let signature = places([
        "header:x-docusign-signature-1",
        "header:x-docusign-signature-2",
        "header:x-docusign-signature-3",
        "header:x-docusign-signature-4",
        "header:x-docusign-signature-5",
        "header:x-docusign-signature-6",
        "header:x-docusign-signature-7",
        "header:x-docusign-signature-8",
    ]);
    Recipe {
        signature,
        ..base64("x-docusign-signature-1", "")
    }
}

/// The secret is the id of the webhook, which `PayPal` signs.
fn paypal() -> Recipe {
    let recipe = base64("paypal-transmission-sig", "")
        .with(Algorithm::RsaCertificate)
        .covers("{header:paypal-transmission-id}|{timestamp}|{secret}|{body-crc32}")
        .time("header:paypal-transmission-time", TimeUnit::Rfc3339, ANY_AGE)
        .id("body:/id");
    let certificate = CertificateRecipe {
        url: Place::header("paypal-cert-url"),
        hosts: vec!["api.paypal.com".to_owned(), "api.sandbox.paypal.com".to_owned()],
        path_prefix: "/v1/notifications/certs/".to_owned(),
        path_suffix: String::new(),
    };
    Recipe {
        certificate: Some(certificate),
        ..recipe
    }
}

/// Each webhook has a secret of its own, which Asana makes and sends once.
fn asana() -> Recipe {
    Recipe {
        secrets: SecretOrigin::Handshake,
        ..hex("x-hook-signature", "")
    }
}

/// The secret is the ARN of the topic, because Amazon signs for everyone.
fn sns() -> Recipe {
    let certificate = CertificateRecipe {
        url: Place::body("/SigningCertURL"),
        hosts: vec![
            "sns.*.amazonaws.com".to_owned(),
            "sns.*.amazonaws.com.cn".to_owned(),
        ],
        path_prefix: "/SimpleNotificationService-".to_owned(),
        path_suffix: ".pem".to_owned(),
    };
    let recipe = Recipe {
        signature: places(["body:/Signature"]),
        encoding: Encoding::Base64,
        content: Content::Sns,
        certificate: Some(certificate),
        ..Recipe::default()
    };
    recipe
        .with(Algorithm::RsaCertificate)
        .time("body:/Timestamp", TimeUnit::Rfc3339, ANY_AGE)
        .id("body:/MessageId")
}

fn row(name: &'static str, recipe: Recipe, habits: Habits) -> Preset {
    Preset { name, recipe, habits }
}

fn silent() -> Habits {
    Habits::default()
}

impl Habits {
    fn largest(self, bytes: u64) -> Self {
        Self {
            body_bytes_max: Some(bytes),
            ..self
        }
    }

    fn answer(self, within: Duration) -> Self {
        Self {
            answer_within: Some(within),
            ..self
        }
    }

    fn retries(self, for_at_most: Duration) -> Self {
        Self {
            retries_for: Some(for_at_most),
            ..self
        }
    }

    fn ports(self, ports: &'static [u16]) -> Self {
        Self { ports, ..self }
    }

    fn on_429(self, retries: bool) -> Self {
        Self {
            retries_429: Some(retries),
            ..self
        }
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    seconds(60 * count)
}

const fn hours(count: u64) -> Duration {
    minutes(60 * count)
}

const fn days(count: u64) -> Duration {
    hours(24 * count)
}
