//! Keys that nobody has used: what the admin listener answers on `/keys/unused`, so that they can be removed.

use serde::{Deserialize, Serialize};

use crate::gateway::current::Gateway;
use crate::model::clock;

/// Keys that are named; further ones are only counted.
const NAMED_MAX: usize = 1000;

/// The answer of `/keys/unused`. The gateway remembers only as long as it runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct KeyUsage {
    /// Seconds since the gateway started.
    pub since_seconds: u64,
    /// Keys in force.
    pub keys: usize,
    /// Those of them that have let nobody in since.
    pub unused: usize,
    /// The first of those, at most 1,000.
    pub named: Vec<UnusedKey>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct UnusedKey {
    pub caller: String,
    pub key: String,
}

impl Gateway {
    pub fn key_usage(&self) -> KeyUsage {
        let mut usage = KeyUsage {
            since_seconds: self.estate.started.elapsed().as_secs(),
            keys: 0,
            unused: 0,
            named: Vec::new(),
        };
        let callers = &self.snapshot().callers;
        for (caller, key) in callers.keys_in_force(clock::wall()) {
            usage.keys += 1;
            if callers.has_used(&key) {
                continue;
            }
            usage.unused += 1;
            if usage.named.len() < NAMED_MAX
                && let Some(label) = key.label()
            {
                usage.named.push(UnusedKey {
                    caller: caller.to_string(),
                    key: label.to_string(),
                });
            }
        }
        usage
    }
}
