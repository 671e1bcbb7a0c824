//! Subscriptions of Amazon SNS: confirmed once, for listed topics alone, at the vendor's own host, and never seen by a flow.

use http_body_util::Full;
use serde_json::{Value, json};

use crate::emulator::{Door, Reply};
use crate::fetched_certificates::{Amazon, PEM, TOPIC, signed};
use crate::harness::{Answer, post};
#[cfg(unix)]
use crate::program::Program;
#[cfg(unix)]
use crate::reloading::send;

const TOKEN: &str =
    "2336412f37fb687f5d51e6e241d09c805a5a57b30d712f794cc5f6a988666d92768dd60a747ba6f3beb71854e285d6ad";
const OPT_IN: &str = "handshakes = [\"sns\"]";

/// Where Amazon confirms a subscription.
fn confirm_url(amazon: &Amazon, topic: &str, token: &str) -> String {
    amazon.url(&format!(
        "/?Action=ConfirmSubscription&TopicArn={topic}&Token={token}"
    ))
}

fn message(amazon: &Amazon, kind: &str, token: &str, url: &str) -> String {
    let message = json!({
        "Type": kind, "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b", "Token": token, "TopicArn": TOPIC,
        "Message": "You have chosen to subscribe to the topic.", "SubscribeURL": url,
        "Timestamp": flowgate::model::clock::stamp(), "SignatureVersion": "2",
    });
    let fields = [
        "Message",
        "MessageId",
        "SubscribeURL",
        "Timestamp",
        "Token",
        "TopicArn",
        "Type",
    ];
    signed(&amazon.leaf, message, &fields, &amazon.url(PEM))
}

fn subscription(amazon: &Amazon, token: &str) -> String {
    let url = confirm_url(amazon, TOPIC, token);
    message(amazon, "SubscriptionConfirmation", token, &url)
}

/// What was called besides the certificate.
fn confirmed(amazon: &Amazon) -> Vec<String> {
    let targets = amazon.vendor.targets().into_iter();
    targets.filter(|target| target != PEM).collect()
}

async fn line(amazon: &Amazon, answer: &Answer) -> Value {
    let line = amazon.gateway.lines.of(answer).await;
    assert!(!line.to_string().contains(&TOKEN[..16]), "{line}");
    line
}

#[tokio::test]
async fn a_subscription_of_a_listed_topic_is_confirmed_once() {
    let amazon = Amazon::new(OPT_IN).await;
    amazon.vendor.put("/", "<ConfirmSubscriptionResponse/>");
    let body = subscription(&amazon, TOKEN);
    for _ in 0..3 {
        let answer = amazon.send(body.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, String::new()));
        let line = line(&amazon, &answer).await;
        assert_eq!(
            (
                line["handshake"].as_str(),
                line["caller"].as_str(),
                line["run_started"].as_str()
            ),
            (Some("sns"), Some("sns"), Some("no"))
        );
    }
    let target = format!("/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}");
    assert_eq!(confirmed(&amazon), [target]);
    assert_eq!(amazon.trigger.runs(), 0);
    amazon.vendor.assert_clean();
}

#[tokio::test]
async fn a_route_that_does_not_list_it_confirms_nothing() {
    let amazon = Amazon::new("").await;
    amazon.vendor.put("/", "");
    assert_eq!(amazon.send(subscription(&amazon, TOKEN)).await.status, 202);
    assert_eq!((confirmed(&amazon).len(), amazon.trigger.runs()), (0, 1));
}

#[tokio::test]
async fn nothing_is_called_but_what_confirms_this_topic_with_this_token() {
    let amazon = Amazon::new(OPT_IN).await;
    amazon.vendor.put("/", "");
    let host = amazon.vendor.host();
    let good = confirm_url(&amazon, TOPIC, TOKEN);
    let mut bodies = Vec::new();
    for url in [
        good.replace("https:", "http:"),
        good.replace(&host, "evil.example"),
        good.replace(&host, &format!("user@{host}")),
        good.replace(&host, &format!("evil.example/{host}")),
        good.replace("/?", "/other?"),
        good.replace("ConfirmSubscription", "Unsubscribe"),
        good.replace("orders", "others"),
        good.replace(TOKEN, &TOKEN.replace('2', "3")),
        format!("{good}&AuthenticateOnUnsubscribe=true"),
        String::new(),
    ] {
        let answer = amazon
            .send(message(&amazon, "SubscriptionConfirmation", TOKEN, &url))
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (400, "handshake-refused".to_owned()),
            "{url}"
        );
        let line = line(&amazon, &answer).await;
        let cause = line["cause"].as_str().unwrap();
        assert!(cause.contains("handshake of sns: SubscribeURL "), "{cause}");
        let mut body = answer.json();
        body["instance"].take();
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "{bodies:?}");
    for (token, cause) in [
        ("2336", "the token has 4 bytes"),
        (&*"2/".repeat(20), "characters other than"),
    ] {
        let answer = amazon.send(subscription(&amazon, token)).await;
        assert_eq!(answer.code(), "handshake-refused");
        let line = line(&amazon, &answer).await;
        assert!(line["cause"].as_str().unwrap().contains(cause), "{line}");
    }
    // Nobody but Amazon starts one, and for no other topic.
    let forged = subscription(&amazon, TOKEN).replace("You have chosen", "Somebody chose");
    assert_eq!(amazon.send(forged).await.code(), "signature-invalid");
    let other = subscription(&amazon, TOKEN).replace(":orders\"", ":others\"");
    assert_eq!(amazon.send(other).await.code(), "signature-invalid");
    assert_eq!(confirmed(&amazon), Vec::<String>::new());
    assert_eq!(amazon.trigger.runs(), 0);
}

#[tokio::test]
async fn a_subscription_that_amazon_does_not_confirm_is_refused_or_sent_again() {
    let amazon = Amazon::new(OPT_IN).await;
    assert_eq!(amazon.send(amazon_delivery(&amazon)).await.status, 202);
    let token = |number: usize| format!("{TOKEN}{number}");
    for (number, reply, status, code) in [
        (1, Reply::new(403), 400, "handshake-refused"),
        (2, Reply::new(500), 503, "vendor-unavailable"),
        (
            3,
            Reply::new(302).header("Location", amazon.url("/")),
            503,
            "vendor-unavailable",
        ),
    ] {
        amazon.vendor.next(reply);
        let answer = amazon.send(subscription(&amazon, &token(number))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code.to_owned()));
        let line = line(&amazon, &answer).await;
        assert!(line["cause"].as_str().unwrap().contains(TOPIC), "{line}");
    }
    amazon.vendor.listener().evict();
    amazon.vendor.listener().set_door(Door::Refuse).await;
    let answer = amazon.send(subscription(&amazon, &token(4))).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (503, "vendor-unavailable".to_owned())
    );
    assert!(answer.header("retry-after").is_some());
    assert!(!line(&amazon, &answer).await.to_string().contains("Token="));
    assert_eq!(amazon.trigger.runs(), 1);
}

fn amazon_delivery(amazon: &Amazon) -> String {
    let message = json!({
        "Type": "Notification", "MessageId": "1", "TopicArn": TOPIC, "Message": "Hello",
        "Timestamp": flowgate::model::clock::stamp(), "SignatureVersion": "2",
    });
    let fields = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"];
    signed(&amazon.leaf, message, &fields, &amazon.url(PEM))
}

#[tokio::test]
async fn subscriptions_have_the_limit_of_handshakes() {
    let amazon = Amazon::new(OPT_IN).await;
    amazon.vendor.put("/", "");
    let mut connection = amazon.gateway.connect().await;
    let mut answered = 0;
    let limited = loop {
        let body = subscription(&amazon, &format!("{TOKEN}{answered}"));
        let answer = connection
            .send(post("/hooks").body(Full::from(body)).unwrap())
            .await;
        match answer.status.as_u16() {
            200 => answered += 1,
            _ => break answer,
        }
        assert!(answered < 100);
    };
    assert_eq!(limited.code(), "rate-limited");
    assert_eq!(confirmed(&amazon).len(), answered);
    assert_eq!(amazon.send(amazon_delivery(&amazon)).await.status, 202);
}

#[tokio::test]
async fn a_subscription_that_ended_is_answered_and_starts_nothing() {
    let amazon = Amazon::new(OPT_IN).await;
    amazon.vendor.put("/", "");
    let url = confirm_url(&amazon, TOPIC, TOKEN);
    let body = message(&amazon, "UnsubscribeConfirmation", TOKEN, &url);
    let answer = amazon.send(body.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, String::new()));
    assert_eq!(line(&amazon, &answer).await["handshake"], "sns");
    let forged = body.replace("You have chosen", "Somebody chose");
    assert_eq!(amazon.send(forged).await.code(), "signature-invalid");
    assert_eq!(confirmed(&amazon), Vec::<String>::new());
    assert_eq!(amazon.trigger.runs(), 0);
}

#[cfg(unix)]
#[tokio::test]
async fn the_operator_learns_when_a_subscription_begins_and_ends() {
    let amazon = Amazon::new(OPT_IN).await;
    amazon.vendor.put("/", "");
    let mut program = Program::start(&amazon.world, &amazon.settings);
    program.address().await;
    let url = confirm_url(&amazon, TOPIC, TOKEN);
    for (kind, level, text) in [
        (
            "SubscriptionConfirmation",
            "INFO",
            format!("the subscription of {TOPIC} was confirmed"),
        ),
        (
            "UnsubscribeConfirmation",
            "WARN",
            format!("sns has ended the subscription of {TOPIC}"),
        ),
    ] {
        let request = post("/hooks").body(Full::from(message(&amazon, kind, TOKEN, &url)));
        assert_eq!(send(&amazon.world, &program, request.unwrap()).await, 200);
        let logged = |line: &Value| {
            assert!(!line.to_string().contains(TOKEN), "{line}");
            line["message"]
                .as_str()
                .is_some_and(|message| message.starts_with(&text))
        };
        let line = program.line(logged).await;
        assert_eq!(
            (line["level"].as_str(), line["route"].as_str()),
            (Some(level), Some("hooks"))
        );
    }
}
