//! Shapes that the signatures of several vendors share, and the words in which the rest of a recipe is written.

use std::time::Duration;

use crate::model::signature::place::Place;
use crate::model::signature::recipe::{
    Algorithm, Content, Encoding, KeyForm, Recipe, TimeUnit, TimestampPlace, TimestampRecipe,
};
use crate::model::signature::template::Template;

/// What most vendors recommend, and what is taken where one signs a timestamp without a recommendation.
pub(super) const TOLERANCE: Duration = Duration::from_secs(300);

/// Signature, timestamp and id of Standard Webhooks, and of the service that it comes from.
pub(super) const WEBHOOK: [&str; 3] = [
    "webhook-signature",
    "header:webhook-timestamp",
    "header:webhook-id",
];
pub(super) const SVIX: [&str; 3] = ["svix-signature", "header:svix-timestamp", "header:svix-id"];

pub(super) fn standard_webhooks([signature, timestamp, id]: [&'static str; 3]) -> Recipe {
    base64(signature, "v1,")
        .several(' ')
        .covers("{id}.{timestamp}.{body}")
        .time(timestamp, TimeUnit::Seconds, Some(TOLERANCE))
        .id(id)
        .key(KeyForm::Base64, "whsec_")
}

pub(super) fn hex(header: &'static str, prefix: &str) -> Recipe {
    Recipe {
        signature: vec![Place::header(header)],
        prefix: prefix.to_owned(),
        ..Recipe::default()
    }
}

pub(super) fn base64(header: &'static str, prefix: &str) -> Recipe {
    Recipe {
        encoding: Encoding::Base64,
        ..hex(header, prefix)
    }
}

/// Timestamp and signatures in one value: `t=1492774577,v1=...` over `{timestamp}.{body}`.
pub(super) fn timed(
    header: &'static str,
    prefix: &str,
    separator: char,
    timestamp: &str,
    unit: TimeUnit,
    tolerance: Duration,
) -> Recipe {
    let timestamp = TimestampRecipe {
        place: TimestampPlace::Beside(timestamp.to_owned()),
        unit,
        tolerance: Some(tolerance),
    };
    let recipe = Recipe {
        timestamp: Some(timestamp),
        ..hex(header, prefix)
    };
    recipe.several(separator).covers("{timestamp}.{body}")
}

/// `v0=...` over `v0:{timestamp}:{body}`.
pub(super) fn version_0(signature: &'static str, timestamp: &str) -> Recipe {
    hex(signature, "v0=")
        .covers("v0:{timestamp}:{body}")
        .time(timestamp, TimeUnit::Seconds, Some(TOLERANCE))
}

pub(super) fn token(place: &str) -> Recipe {
    Recipe {
        signature: places([place]),
        encoding: Encoding::Plain,
        content: Content::Template(Template::default()),
        ..Recipe::default().with(Algorithm::Token)
    }
}

/// HTTP Basic; the secret is `user:password`.
pub(super) fn basic() -> Recipe {
    Recipe {
        prefix: "Basic ".to_owned(),
        encoding: Encoding::Base64,
        ..token("header:authorization")
    }
}

/// A place that cannot be read is left out, and a template is empty then; a scheme is not built of either, and a test builds
/// one of every row.
pub(super) fn places<const N: usize>(texts: [&str; N]) -> Vec<Place> {
    texts.iter().filter_map(|text| Place::parse(text).ok()).collect()
}

impl Recipe {
    pub(super) fn covers(self, template: &str) -> Self {
        let content = Content::Template(Template::parse(template).unwrap_or_default());
        Self { content, ..self }
    }

    pub(super) fn with(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    pub(super) fn several(self, separator: char) -> Self {
        Self {
            separator: Some(separator),
            ..self
        }
    }

    pub(super) fn id(self, place: &str) -> Self {
        Self {
            id: Place::parse(place).ok(),
            ..self
        }
    }

    pub(super) fn time(self, place: &str, unit: TimeUnit, tolerance: Option<Duration>) -> Self {
        let place = Place::parse(place).ok().map(TimestampPlace::At);
        let timestamp = place.map(|place| TimestampRecipe {
            place,
            unit,
            tolerance,
        });
        Self { timestamp, ..self }
    }

    pub(super) fn key(self, key_form: KeyForm, prefix: &str) -> Self {
        Self {
            key_form,
            key_prefix: prefix.to_owned(),
            ..self
        }
    }
}
