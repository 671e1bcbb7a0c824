//! The table of presets, for the page of vendors.

use std::time::Duration;

use crate::model::signature::{Algorithm, Content, Preset, Recipe, TimestampPlace};

/// One row for each preset.
pub fn presets_table() -> String {
    let head = "| `preset` | signature in | over | algorithm | timestamp | delivery id | largest body | gives up after | repeats for, after 429 |\n\
                | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
    let rows = Preset::all().iter().map(row);
    rows.fold(head.to_owned(), |table, row| table + &row)
}

fn row(preset: &Preset) -> String {
    let (recipe, habits) = (&preset.recipe, preset.habits);
    let places: Vec<_> = recipe
        .signature
        .iter()
        .map(|place| format!("`{place}`"))
        .collect();
    let body = habits.body_bytes_max.map(|bytes| match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    });
    let repeats = match (habits.retries_for, habits.retries_429) {
        (None, None) => String::new(),
        (time, after_429) => {
            let time = time.map_or("?".to_owned(), duration);
            let after = match after_429 {
                Some(true) => "yes",
                Some(false) => "no",
                None => "?",
            };
            format!("{time}, {after}")
        }
    };
    let cells = [
        format!("`{}`", preset.name),
        places.join(" or "),
        over(recipe),
        algorithm(recipe.algorithm).to_owned(),
        timestamp(recipe),
        recipe
            .id
            .as_ref()
            .map_or(String::new(), |place| format!("`{place}`")),
        body.unwrap_or_default(),
        habits.answer_within.map_or(String::new(), duration),
        repeats,
    ];
    format!("| {} |\n", cells.join(" | "))
}

pub(super) fn over(recipe: &Recipe) -> String {
    match &recipe.content {
        _ if recipe.algorithm == Algorithm::Token => "nothing; the value is the secret".to_owned(),
        Content::Template(template) => format!("`{}`", template.to_string().replace('|', "\\|")),
        Content::Twilio => "`{url}` and the fields of a form, or `{url}` with a hash of the body".to_owned(),
        Content::Adyen => "eight fields of the notification".to_owned(),
        Content::Sns => "fields of the message".to_owned(),
    }
}

pub(super) fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::HmacSha1 => "HMAC-SHA-1",
        Algorithm::HmacSha256 => "HMAC-SHA-256",
        Algorithm::HmacSha512 => "HMAC-SHA-512",
        Algorithm::Ed25519 => "Ed25519",
        Algorithm::EcdsaP256 => "ECDSA P-256",
        Algorithm::RsaCertificate => "RSA, certificate of the vendor",
        Algorithm::Token => "none",
    }
}

pub(super) fn timestamp(recipe: &Recipe) -> String {
    let Some(timestamp) = &recipe.timestamp else {
        return String::new();
    };
    let place = match &timestamp.place {
        TimestampPlace::At(place) => place.to_string(),
        TimestampPlace::Beside(prefix) => format!("{prefix}..."),
    };
    match timestamp.tolerance {
        Some(tolerance) => format!("`{place}` ± {}", duration(tolerance)),
        None => format!("`{place}`, any"),
    }
}

pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => "never".to_owned(),
        86_400 => "1 day".to_owned(),
        seconds if seconds % 86_400 == 0 => format!("{} days", seconds / 86_400),
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
