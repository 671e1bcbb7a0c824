//! Signed requests, one row each: those that vendors publish, and for the others ones that an independent implementation
//! computed. Keys are examples of the vendors' documents or made for this file.

#[derive(Debug)]
pub(super) struct Vector {
    pub preset: &'static str,
    pub secret: &'static str,
    /// Seconds since 1970 at which it is received.
    pub now: u64,
    pub url: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: &'static str,
    /// The id of the delivery that is found.
    pub id: Option<&'static str>,
}

/// The certificate of the key that signed the rows of `sns` and `paypal`; valid in 2026. Made with the cryptography package of
/// Python.
pub(super) const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIICpTCCAY2gAwIBAgIBATANBgkqhkiG9w0BAQsFADAWMRQwEgYDVQQDDAtzbnMu
ZXhhbXBsZTAeFw0yNjAxMDEwMDAwMDBaFw0yNzAxMDEwMDAwMDBaMBYxFDASBgNV
BAMMC3Nucy5leGFtcGxlMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA
zCFL0Ucv5M1WNFteTjhWxTVeZX8cj+Fv5MtDiHAZxa4D6EQAUtyywtaMgb4ymdfJ
LqHzfLlYEVrLHMJX5JjoOKC04wLrIXQuXXNBZIW5GiLK/+ck3bxC10cZCUGY2ba9
unfMns56hy5m96M4rr2VUaTCAUtQOls7knDiCdPCa56jMtOiFik3ev6Lf4Kr4biX
hk0BrJ5UFx2tQgZh0wG+0MN4fmAoHrbTMXN3qvsy6QHSMD1KugMz3GSqSZliQlr4
u0NCSZr1yzKmQhTeprjyGc0uEITRQ77RjTUV+lfNUplcAUQ7wChB4FVwHC1/zooq
QCLa0cNs/a8E4unXyLf0IQIDAQABMA0GCSqGSIb3DQEBCwUAA4IBAQAoesFE9Dl3
aJBDnqhWWjYsEq65ApwaQ2xDfS0HrNEgvsg3ZpGpPlfhn+m1eUzbLppAJKYY3C/f
gAyuPHodkU/qfGZhC/9re3vzH8f1HANfk7pSpffaipf+tCM/2jSfoVMmVYswruOu
MBvTxkhM8i/X05QVfm7kPHYlEc53K7hZwYR7pNMrtMbigDlgvqZAAOId9d20ESGA
RJzK5fXq2DC/IcXBfAOd5vPHoy/sZDyEp+Km4NFR/1PW6kzba3/4dFz44vwgwVj9
G+4jrUYHP3u/W/cyiGM4GRu4Zl04gLXyuEMYFjP+5ZNMfxLwQ8HQwUtFvOqOg3cl
jQ6gKxdmdL21
-----END CERTIFICATE-----
";

pub(super) const VECTORS: &[Vector] = &[
    // GitHub, "Validating webhook deliveries".
    Vector {
        preset: "github",
        secret: "It's a Secret to Everybody",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-hub-signature-256",
                "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
            ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ],
        body: "Hello, World!",
        id: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
    },
    // Atlassian, "Manage webhooks", testing the signature.
    Vector {
        preset: "atlassian",
        secret: "It's a Secret to Everybody",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-hub-signature",
                "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9",
            ),
            ("x-atlassian-webhook-identifier", "a1b2"),
        ],
        body: "Hello World!",
        id: Some("a1b2"),
    },
    // Atlassian, "Manage webhooks", testing the signature.
    Vector {
        preset: "bitbucket",
        secret: "It's a Secret to Everybody",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-hub-signature",
                "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9",
            ),
            ("x-request-uuid", "c3d4"),
        ],
        body: "Hello World!",
        id: Some("c3d4"),
    },
    // Slack, "Verifying requests from Slack".
    Vector {
        preset: "slack",
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        now: 1531420618,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-slack-signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
            ("x-slack-request-timestamp", "1531420618"),
        ],
        body: "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "slack",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-slack-signature",
                "v0=2d6cd8be9b7bb20fa7f5a9026b9fad00fbbf5f01296f6a4dbc39f186009b16d5",
            ),
            ("x-slack-request-timestamp", "1790000000"),
        ],
        body: r#"{"type":"event_callback","event_id":"Ev08MFMKH6"}"#,
        id: Some("Ev08MFMKH6"),
    },
    // Svix and Standard Webhooks, tests of the libraries.
    Vector {
        preset: "standard-webhooks",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // Svix and Standard Webhooks, tests of the libraries.
    Vector {
        preset: "svix",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            (
                "svix-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // Svix and Standard Webhooks, tests of the libraries.
    Vector {
        preset: "gitlab",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // Svix and Standard Webhooks, tests of the libraries.
    Vector {
        preset: "openai",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // Svix and Standard Webhooks, tests of the libraries.
    Vector {
        preset: "clerk",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            (
                "svix-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // Svix and Standard Webhooks, tests of the libraries.
    Vector {
        preset: "resend",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            (
                "svix-signature",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // The same among other signatures, as the documentation of Svix has them.
    Vector {
        preset: "svix",
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        now: 1614265330,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            (
                "svix-signature",
                "v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v2,MzJsNDk4MzI0K2VvdSMjMTEjQEBAQDEyMzMzMzEyMwo=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    },
    // Twilio, "Webhooks security" and the tests of its libraries.
    Vector {
        preset: "twilio",
        secret: "12345",
        now: 1790000000,
        url: "https://mycompany.com/myapp.php?foo=1&bar=2",
        headers: &[
            ("x-twilio-signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ],
        body: "Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE",
        id: None,
    },
    // Twilio, body and hash of the tests of its libraries.
    Vector {
        preset: "twilio",
        secret: "12345",
        now: 1790000000,
        url: "https://mycompany.com/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620",
        headers: &[
            ("x-twilio-signature", "a9nBmqA0ju/hNViExpshrM61xv4="),
            ("content-type", "application/json"),
            ("i-twilio-idempotency-token", "5b1e"),
        ],
        body: r#"{"property": "value", "boolean": true}"#,
        id: Some("5b1e"),
    },
    // Twilio's example with HMAC-SHA256; computed with the hmac module of Python.
    Vector {
        preset: "twilio-sha256",
        secret: "12345",
        now: 1790000000,
        url: "https://mycompany.com/myapp.php?foo=1&bar=2",
        headers: &[
            (
                "x-twilio-signature",
                "033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s=",
            ),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ],
        body: "Digits=1234&To=%2B18005551212&From=%2B14158675309&Caller=%2B14158675309&CallSid=CA1234567890ABCDE",
        id: None,
    },
    // Square, "Verify and validate an event notification".
    Vector {
        preset: "square",
        secret: "asdf1234",
        now: 1790000000,
        url: "https://example.com/webhook",
        headers: &[(
            "x-square-hmacsha256-signature",
            "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=",
        )],
        body: r#"{"hello":"world"}"#,
        id: None,
    },
    // Adyen, "Verify HMAC signatures" and the tests of its libraries.
    Vector {
        preset: "adyen",
        secret: "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"live":"false","notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":"coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="},"amount":{"value":1130,"currency":"EUR"},"pspReference":"7914073381342284","eventCode":"AUTHORISATION","eventDate":"2019-05-06T17:15:34.121+02:00","merchantAccountCode":"TestMerchant","operations":["CANCEL"],"merchantReference":"TestPayment-1407325143704","paymentMethod":"visa","success":"true"}}]}"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "adyen-platform",
        secret: "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[("hmacsignature", "dHUnFCWH926aP0TyUjn01+mlkLvdPbn5rgnz80rwTM4=")],
        body: r#"{"type":"balancePlatform.transfer.created"}"#,
        id: None,
    },
    // SendGrid, tests of @sendgrid/eventwebhook.
    Vector {
        preset: "sendgrid",
        secret: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
        now: 1600112502,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-twilio-email-event-webhook-signature",
                "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=",
            ),
            ("x-twilio-email-event-webhook-timestamp", "1600112502"),
        ],
        body: "[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced Address\",\"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\",\"sg_message_id\":\"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0\",\"smtp-id\":\"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":1600112492}]\r\n",
        id: None,
    },
    // A token.
    Vector {
        preset: "gitlab-token",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("x-gitlab-token", "canary-signing-secret"),
            ("idempotency-key", "f5e5"),
        ],
        body: "{}",
        id: Some("f5e5"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "linear",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "linear-signature",
                "6eeb1318a86a3c99086a2b550955b26c1684d87d335b502d70a1161e64f0cc80",
            ),
            ("linear-delivery", "234d"),
        ],
        body: r#"{"action":"create","webhookTimestamp":1790000000000}"#,
        id: Some("234d"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "pagerduty",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "x-pagerduty-signature",
            "v1=0000000000000000000000000000000000000000000000000000000000000000,v1=0ef1b1698ddde2ead469b47bf3bef2d3a64b4a9b88f78cd074071e469f29702b",
        )],
        body: r#"{"event":{"id":"01CH","event_type":"incident.triggered"}}"#,
        id: Some("01CH"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "zendesk",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-zendesk-webhook-signature",
                "MuMn9EvqGRzhsVsMigHoivSu7wHlSZUT2hpiuTHIOb4=",
            ),
            ("x-zendesk-webhook-signature-timestamp", "2026-09-21T14:13:20Z"),
            ("x-zendesk-webhook-invocation-id", "01GR"),
        ],
        body: r#"{"ticket":{"id":35436}}"#,
        id: Some("01GR"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "stripe",
        secret: "whsec_test",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "stripe-signature",
            "t=1790000000,v1=00ba81aba90a4cf87c6f87127da13e8e98cddfe214e9e97b0fdfc547be8acead,v0=0000000000000000000000000000000000000000000000000000000000000000",
        )],
        body: r#"{"id":"evt_1","object":"event"}"#,
        id: Some("evt_1"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "shopify",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-shopify-hmac-sha256",
                "fDT8IAJKeeqgmTyow/K6qrEGk4eYmZuX2mXRe0L6Crk=",
            ),
            ("x-shopify-webhook-id", "b54557e4"),
        ],
        body: r#"{"id":820982911946154508}"#,
        id: Some("b54557e4"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "woocommerce",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-wc-webhook-signature",
                "fDT8IAJKeeqgmTyow/K6qrEGk4eYmZuX2mXRe0L6Crk=",
            ),
            ("x-wc-webhook-delivery-id", "7c1f"),
        ],
        body: r#"{"id":820982911946154508}"#,
        id: Some("7c1f"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "authorize-net",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "x-anet-signature",
            "sha512=F47344EA01FFC8B89E0BDBAD9C2766B52B3C8738FB6C8A74581A720AE86A7B3EDF19A0F1FE49B7582BB570541FB71F8B0CBB35DF875B0AE349A0556C753B8E31",
        )],
        body: r#"{"notificationId":"d0e8","eventType":"net.authorize.payment.authcapture.created"}"#,
        id: Some("d0e8"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "paddle",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "paddle-signature",
            "ts=1790000000;h1=d81b012fce4ef4ea17bb9a91c4315df3e14444c5998b37f929c84ec4874e6bf1",
        )],
        body: r#"{"event_id":"evt_01h","event_type":"transaction.paid"}"#,
        id: Some("evt_01h"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "razorpay",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-razorpay-signature",
                "4aa4e5510e29de17209c252018179daf16548cc503ad6064338b8c916bebcffb",
            ),
            ("x-razorpay-event-id", "EvT1"),
        ],
        body: r#"{"event_id":"evt_01h","event_type":"transaction.paid"}"#,
        id: Some("EvT1"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "xero",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[("x-xero-signature", "SqTlUQ4p3hcgnCUgGBedrxZUjMUDrWBkM4uMkWvrz/s=")],
        body: r#"{"event_id":"evt_01h","event_type":"transaction.paid"}"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "zoom",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-zm-signature",
                "v0=443f7b75947cc8d82aa65d850b5f783f82da014899baa3f78acc46c826780cc5",
            ),
            ("x-zm-request-timestamp", "1790000000"),
        ],
        body: r#"{"event_id":"evt_01h","event_type":"transaction.paid"}"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "mailgun",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"signature": {"timestamp": "1790000000", "token": "c5ee", "signature": "3cf55a5da7e205a6f58a28ee988ce74e58f90285872aea44c157ccea8dee93ab"}, "event-data": {"event": "opened"}}"#,
        id: Some("c5ee"),
    },
    // HTTP Basic.
    Vector {
        preset: "postmark",
        secret: "flowgate:canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[("authorization", "Basic Zmxvd2dhdGU6Y2FuYXJ5LXNpZ25pbmctc2VjcmV0")],
        body: r#"{"RecordType":"Delivery"}"#,
        id: None,
    },
    // HTTP Basic.
    Vector {
        preset: "azure-devops",
        secret: "flowgate:canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[("authorization", "Basic Zmxvd2dhdGU6Y2FuYXJ5LXNpZ25pbmctc2VjcmV0")],
        body: r#"{"id":"03c1","eventType":"git.push"}"#,
        id: Some("03c1"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "intercom",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[("x-hub-signature", "sha1=b95fdafcc2bbccb50421f0e42c83bf899b633790")],
        body: r#"{"type":"notification_event","id":"notif_1"}"#,
        id: Some("notif_1"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "meta",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "x-hub-signature-256",
            "sha256=ae930272b6f1cd13b633bb5405dc05b690d480d7ffa0882d4e76b139649249a7",
        )],
        body: r#"{"object":"page","entry":[]}"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "x",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "x-twitter-webhooks-signature",
            "sha256=rpMCcrbxzRO2M7tUBdwFtpDUgNf/oIgtTnaxOWSSSac=",
        )],
        body: r#"{"object":"page","entry":[]}"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "twitch",
        secret: "canary-twitch-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "twitch-eventsub-message-signature",
                "sha256=6b982ac11d9ffcc3f0d6677a3d9ea072673a26a15d6fed28961b729c04d2f0cd",
            ),
            (
                "twitch-eventsub-message-timestamp",
                "2026-09-21T14:13:20.634234626Z",
            ),
            (
                "twitch-eventsub-message-id",
                "e76c6bd4-55c9-4987-8304-da1588d8988b",
            ),
        ],
        body: r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo"}"#,
        id: Some("e76c6bd4-55c9-4987-8304-da1588d8988b"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "line",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[("x-line-signature", "rpMCcrbxzRO2M7tUBdwFtpDUgNf/oIgtTnaxOWSSSac=")],
        body: r#"{"object":"page","entry":[]}"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "hubspot",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?redirect=a%3Ab%2Fc%20d",
        headers: &[
            (
                "x-hubspot-signature-v3",
                "wJtUc84+Jp5V+m3G6GQ+Mmr/o0ZJ4gOtnWezZnctwkk=",
            ),
            ("x-hubspot-request-timestamp", "1790000000000"),
        ],
        body: r#"[{"eventId":1}]"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "docusign",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-docusign-signature-2",
                "wkWp24B55E7imZAuKUQb5+YSnWa8HMB2cusdtrJOeiU=",
            ),
            (
                "x-docusign-signature-1",
                "xbOLQBmBt3fgs4xBGyZD6XwlRs2lAwCqtPpWrQllOhU=",
            ),
        ],
        body: r#"[{"eventId":1}]"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "calendly",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "calendly-webhook-signature",
            "t=1790000000,v1=4c17a59ea1833cd56bc2c3460a95ee0d2c23347ef499a104abb9213e8c2d4594",
        )],
        body: r#"[{"eventId":1}]"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "typeform",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "typeform-signature",
            "sha256=tKnHocIt2Zy+nuiEprjuqDKA6ocXJp9jaTO/OdO0ipg=",
        )],
        body: r#"{"event_id":"01H","event_type":"form_response"}"#,
        id: Some("01H"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "workos",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "workos-signature",
            "t=1790000000000, v1=927fffa61da4bf3ffae6107ea3f74238b941cd7f20081ae60b6099c95a3ac8f9",
        )],
        body: r#"{"id":"event_01","event":"dsync.activated"}"#,
        id: Some("event_01"),
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "pandadoc",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?signature=f3fadd90f974ca66485f2e1a1d822bf09e2000f00770e8723118475f0edadf53",
        headers: &[],
        body: r#"[{"event":"document_state_changed"}]"#,
        id: None,
    },
    // Computed with the hmac module of Python.
    Vector {
        preset: "teams",
        secret: "Y2FuYXJ5LXRlYW1zLWtleQ==",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "authorization",
            "HMAC nregvNYAuFNZbJoc8ZOlBMrWQJWtg3j9jyqeisQbPsE=",
        )],
        body: r#"{"type":"message","id":"1485983408511"}"#,
        id: Some("1485983408511"),
    },
    // A token.
    Vector {
        preset: "dataverse",
        secret: "canary/key==",
        now: 1790000000,
        url: "https://hooks.example/in?code=canary%2Fkey%3D%3D",
        headers: &[],
        body: r#"{"MessageName":"Create"}"#,
        id: None,
    },
    // A token.
    Vector {
        preset: "business-central",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"value": [{"subscriptionId": "s", "clientState": "canary-signing-secret"}, {"subscriptionId": "s", "clientState": "canary-signing-secret"}]}"#,
        id: None,
    },
    // A token.
    Vector {
        preset: "graph",
        secret: "canary-signing-secret",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"value": [{"changeType": "created", "clientState": "canary-signing-secret", "resource": "users/1/messages/2"}]}"#,
        id: None,
    },
    // Computed with the cryptography package of Python.
    Vector {
        preset: "discord",
        secret: "a0d62413365637785868f400b13f05790c21270099e99187464794b54bcae5fb",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-signature-ed25519",
                "0515d9bd1165da1105b093f7035d4350ab16f61d18b19ab714485bc83812acbadace375065cfda9aa0f9ae45b14b19511a543aad359e76031056ef2360def30d",
            ),
            ("x-signature-timestamp", "1790000000"),
        ],
        body: r#"{"id":"1234","type":1}"#,
        id: Some("1234"),
    },
    // The same key in PEM.
    Vector {
        preset: "discord",
        secret: "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAoNYkEzZWN3hYaPQAsT8FeQwhJwCZ6ZGHRkeUtUvK5fs=\n-----END PUBLIC KEY-----\n",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            (
                "x-signature-ed25519",
                "0515d9bd1165da1105b093f7035d4350ab16f61d18b19ab714485bc83812acbadace375065cfda9aa0f9ae45b14b19511a543aad359e76031056ef2360def30d",
            ),
            ("x-signature-timestamp", "1790000000"),
        ],
        body: r#"{"id":"1234","type":1}"#,
        id: Some("1234"),
    },
    // Computed with the cryptography package of Python.
    Vector {
        preset: "standard-webhooks-ed25519",
        secret: "whpk_oNYkEzZWN3hYaPQAsT8FeQwhJwCZ6ZGHRkeUtUvK5fs=",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", "1790000000"),
            (
                "webhook-signature",
                "v1,AAAA v1a,0bfKgFsrF/boSfW0U5uS0qJh146rhu2f9clQnaWie3m2wbUJ2w0QXymWdY9J8ytqIXWD95oDNqN2e5Vi1GHGCA==",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        id: Some("msg_1"),
    },
    // Computed with the cryptography package of Python. Version 1, no subject.
    Vector {
        preset: "sns",
        secret: "arn:aws:sns:eu-west-1:123456789012:orders",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"Type": "Notification", "MessageId": "22b80b92", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:orders", "Message": "Hello", "Timestamp": "2026-09-21T14:13:20.000Z", "SignatureVersion": "1", "Signature": "ccBOBByubYMhINwWhEsuLPjSJBfA7QE3yUQzQHtuCHCkAX+00/gPwAItyJRfPlOIES0FCOgIU43nMxs1Vunla1IcJ4nfzmAvj4VbxoJysCQ9suZ7Dv/9FbMOZFdc6z0VJjVjhzj0qG0vwpV2KemwHRmiEftSCQj3xfnJOesN1iLCq854AUXbm4c9OA7Kut2NR45FDumyNjE485jcIq3P8CPHkoopZKcgWFtwgP+0oieIsmyhAG0UXKSklGxGXNz+QKhFrkuugj/eYjLrKCnaHuUwB24xkW0RtSKIwb3fujrAdEm5PwBv+J7mg4Y0eRcHFWWcf942BTUMoro4odZcMQ==", "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem"}"#,
        id: Some("22b80b92"),
    },
    // Computed with the cryptography package of Python.
    Vector {
        preset: "sns",
        secret: "arn:aws:sns:eu-west-1:123456789012:orders",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"Type": "Notification", "MessageId": "22b80b92", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:orders", "Message": "Hello", "Timestamp": "2026-09-21T14:13:20.000Z", "Subject": "S", "SignatureVersion": "2", "Signature": "t4HfgDvqg7C5Epk+YICXis9kee+qVGMxgwdMP8I5i5oRMtZOso//q/RlbQsaIAWrCy+/+Jx6OVcl4N35FWYJzwJ9GB9HrimsCAb94By1sCQeq1evw3SfGDChPZjl72St1R2KeTLxdoYTIWb91B/4cJXE6iekSjufG+XSTrL2N/7fqptRqJA4mzoZfpzj+393MnEBxGhZmA8tGRcgBhrSiOauQ8pJcKfpJ5JAw25ak2GoEJf2ZapNY1JfN5JLyWnJd5q61LknNrYu2sec8XVE9DbOssjszza6hwjukKO3HMCA8jnKIlwDBsoIVwH4x7fD8lxc4STaR0dZwM0/k0Dp+w==", "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem"}"#,
        id: Some("22b80b92"),
    },
    // Computed with the cryptography package of Python.
    Vector {
        preset: "sns",
        secret: "arn:aws:sns:eu-west-1:123456789012:orders",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[],
        body: r#"{"Type": "SubscriptionConfirmation", "MessageId": "22b80b92", "TopicArn": "arn:aws:sns:eu-west-1:123456789012:orders", "Message": "Hello", "Timestamp": "2026-09-21T14:13:20.000Z", "Token": "2336", "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription", "SignatureVersion": "2", "Signature": "OwCGNz50Dc6rpNQjgeP8pp31MMCV81r5/JRXbimCywg1oSRPHEypAhsBgyZLoDY+xEbglOECI59huany5astnDmfjxQ+9SgG38cnaYeRzg1p05ILXg+9L+WJm037mN8OWtkePjcGCutE/SWMnmouZhH8icKxLI25iV2rVgQ5ceGZNejAKIBfD3e8qnFBms7I5z7wGNOpiSbCKHX0eVDGbQNM597yMuhclfVi6nMVeBZYv0lwxbz2bj/u4py57XSwbWqdZVzNeDBB9ejH5eIXtoglN/SdboR9R1SLUobPL29RQFIddOZPFo/K6zoszSH/MbEDx68uB3vyVH6ZcaWPow==", "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-0123.pem"}"#,
        id: Some("22b80b92"),
    },
    // Computed with the cryptography package of Python.
    Vector {
        preset: "paypal",
        secret: "WEBHOOK-ID",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[
            ("paypal-transmission-id", "69cd13f0"),
            ("paypal-transmission-time", "2026-09-21T14:13:20Z"),
            (
                "paypal-cert-url",
                "https://api.paypal.com/v1/notifications/certs/CERT-360caa42",
            ),
            ("paypal-auth-algo", "SHA256withRSA"),
            (
                "paypal-transmission-sig",
                "syiQQg67T3IfrvmgN/JtIqTu2m8FcKfek93jXxeMmAoNG9NkrqzV/aF3ZRqaxsa7H03YZHbQHtXqLp9g1LXGq9d3RCOrYljuKq8nejMvQKtEeA0lxmhY6Wzk7Lk0zuPplxunJL86w0z36g6jFUBgQ46aVC8sYjCh0Fq+kxkZZFsGUsCpRYhvMcjf3OR679ejNlwA+V+eu6V7Tt574CacT2HEvqd0EV/0Q3qvKDmVPzWGdlADF2aqj2QvH6c7qSgE4vZB+pabvptL2Xol2NTyD9/UUgs/vZwgbJuh4ziwGmsdziNGOEwvD1fMk5opXfOXKBb4D3PUIjqjat0L0O4W6Q==",
            ),
        ],
        body: r#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED"}"#,
        id: Some("WH-1"),
    },
    // Computed with the hmac module of Python; the secret is the example of Asana's documents.
    Vector {
        preset: "asana",
        secret: "b537207f20cbfa02357cf448134da559e8bd39d61597dcd5631b8012eae53e81",
        now: 1790000000,
        url: "https://hooks.example/in?a=1",
        headers: &[(
            "x-hook-signature",
            "2fa881b4ce82fd84538a8e96161b6932620eca7de22fcb5680eef795994593fd",
        )],
        body: r#"{"events":[{"action":"changed","resource":{"gid":"1200000000000001","resource_type":"task"}}]}"#,
        id: None,
    },
];
