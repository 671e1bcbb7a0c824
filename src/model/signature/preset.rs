//! A preset: the recipe of one vendor, with what its documents say about its deliveries.

use std::time::Duration;

use crate::model::signature::recipe::Recipe;

#[derive(Debug, Clone)]
pub struct Preset {
    /// As the settings name it.
    pub name: &'static str,
    pub recipe: Recipe,
    pub habits: Habits,
}

/// What the documents of a vendor state; none where they are silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Habits {
    /// The largest body that it sends.
    pub body_bytes_max: Option<u64>,
    /// When it gives up waiting for an answer.
    pub answer_within: Option<Duration>,
    /// How long it repeats a failed delivery; zero where it never does.
    pub retries_for: Option<Duration>,
    /// Whether it repeats after 429.
    pub retries_429: Option<bool>,
    /// The ports that it sends to; empty where that is not known.
    pub ports: &'static [u16],
}
