//! The address at which a subscription of Amazon SNS is confirmed. A message names it, and its signature was right; all the same
//! nothing is called but what confirms the topic and the token of that very message, on a host of the vendor.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;

use crate::policy::proof::signature::Scheme;

/// A confirmation that was asked for. Its address has the token, so it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Confirmation {
    url: String,
    topic: String,
}

impl fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Confirmation({})", self.topic)
    }
}

impl Confirmation {
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The ARN of the topic, of characters that need no escape anywhere.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Reads an address that the vendor sent.
    ///
    /// # Errors
    /// What is wrong with it, without a part of it.
    pub(super) fn read(url: &str, topic: &str, token: &str, scheme: &Scheme) -> Result<Self, &'static str> {
        let topic = checked_topic(topic)?;
        let (authority, query) = url
            .strip_prefix("https://")
            .and_then(|rest| rest.split_once("/?"))
            .ok_or("SubscribeURL is no address of the vendor over HTTPS")?;
        if !scheme.is_vendors(authority) {
            return Err("SubscribeURL is not on a host of the vendor");
        }
        let wanted = [
            ("Action", "ConfirmSubscription"),
            ("TopicArn", topic),
            ("Token", token),
        ];
        let is_there = |(name, value): &(&str, &str)| {
            let mut same = query.split('&').filter_map(|pair| pair.split_once('='));
            same.any(|(key, text)| key == *name && percent_decode_str(text).eq(value.bytes()))
        };
        if query.split('&').count() != wanted.len() || !wanted.iter().all(is_there) {
            return Err("SubscribeURL does not confirm the topic and the token of the message");
        }
        // Made anew, so that nothing of it is read in another way where it is called.
        let query = wanted.map(|(name, value)| format!("{name}={value}")).join("&");
        Ok(Self {
            url: format!("https://{authority}/?{query}"),
            topic: topic.to_owned(),
        })
    }
}

/// An ARN as Amazon makes them, which is safe in a log and in an address.
fn checked_topic(topic: &str) -> Result<&str, &'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte);
    match topic.len() <= 512 && topic.bytes().all(plain) {
        true => Ok(topic),
        false => Err("TopicArn is no ARN"),
    }
}

/// A topic for people; anything that is no ARN is left out.
pub(super) fn shown(topic: &str) -> Cow<'_, str> {
    checked_topic(topic).map_or(Cow::Borrowed("a topic"), Cow::Borrowed)
}

#[cfg(test)]
mod tests {
    use super::Confirmation;
    use crate::model::signature::{Preset, SigningSecret};
    use crate::model::{KeyLabel, Secret};
    use crate::policy::proof::signature::Scheme;

    const TOPIC: &str = "arn:aws:sns:eu-west-1:123456789012:orders";
    const TOKEN: &str = "2336412f37fb687f5d51e6e241d09c805a5a57b3";

    fn read(url: &str, topic: &str) -> Result<Confirmation, &'static str> {
        let secret = SigningSecret {
            label: KeyLabel::parse("topic").unwrap(),
            secret: Secret::new(TOPIC),
            not_before: None,
            expires: None,
        };
        let scheme = Scheme::build(&Preset::named("sns").unwrap().recipe, &[secret]).unwrap();
        Confirmation::read(url, topic, TOKEN, &scheme)
    }

    #[test]
    fn an_address_confirms_its_own_topic_and_token_and_nothing_else() {
        let query = format!("Action=ConfirmSubscription&TopicArn={TOPIC}&Token={TOKEN}");
        let host = "sns.eu-west-1.amazonaws.com";
        let good = format!("https://{host}/?{query}");
        let escaped = good.replace("arn:aws:", "arn%3Aaws%3A");
        for url in [&good, &escaped] {
            let read = read(url, TOPIC).unwrap();
            assert_eq!((read.url(), read.topic()), (&*good, TOPIC));
            assert!(!format!("{read:?}").contains(TOKEN));
        }
        for bad in [
            good.replace("https:", "http:"),
            good.replace(host, "evil.example"),
            good.replace(host, "sns.eu-west-1.amazonaws.com:8443"),
            good.replace(host, "sns.eu-west-1.amazonaws.com@evil.example"),
            good.replace(host, "evil.example#sns.eu-west-1.amazonaws.com"),
            good.replace(host, "sns.s3.amazonaws.com"),
            good.replace("/?", "/other?"),
            good.replace("ConfirmSubscription", "Publish"),
            good.replace("orders", "others"),
            good.replace(TOKEN, "2336412f37fb687f5d51e6e241d09c805a5a57b4"),
            good.replace("Action", "action"),
            format!("{good}&Action=Publish"),
            format!("{good}&AuthenticateOnUnsubscribe=true"),
            good.replace(&format!("&Token={TOKEN}"), ""),
            good.replace(TOKEN, &format!("{TOKEN}#")),
            String::new(),
        ] {
            assert!(read(&bad, TOPIC).is_err(), "{bad}");
        }
        for topic in ["a b", "a\nb", "a\u{1b}[0m", "a&b", "a/b", &"a".repeat(600)] {
            assert!(read(&good.replace(TOPIC, topic), topic).is_err(), "{topic}");
        }
    }
}
