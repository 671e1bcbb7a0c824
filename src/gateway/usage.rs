//! What is known of keys: those that nobody has used, which the admin listener answers on `/keys/unused`, the state and last use
//! of each, and what of that survives a restart.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::gateway::current::Gateway;
use crate::model::{CallerName, KeyLabel, Minute, clock};
use crate::policy::key::Lapse;
use crate::settings::Dates;
use crate::state::KeyUse;

/// Keys that are named; further ones are only counted.
const NAMED_MAX: usize = 1000;

/// The answer of `/keys/unused`: uses before the start are left aside.
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

    /// The first keys, of all callers or of one, and how many more there are; nothing for a caller that there is not.
    pub fn keys(&self, caller: Option<&CallerName>, keys_max: usize) -> Option<(Vec<KeyFacts>, usize)> {
        let now = clock::wall();
        let callers = &self.snapshot().callers;
        if caller.is_some_and(|caller| !callers.has(caller)) {
            return None;
        }
        let wanted = |name: &CallerName| caller.is_none_or(|caller| caller == name);
        let mut all = callers.all_keys().filter(|(name, _)| wanted(name));
        let first = all.by_ref().take(keys_max).filter_map(|(caller, key)| {
            Some(KeyFacts {
                caller: caller.clone(),
                label: key.label()?,
                lapse: callers.lapse(&key, now),
                dates: key.terms()?.dates,
                last_use: callers.last_use(&key),
                now,
            })
        });
        let first = first.collect();
        Some((first, all.count()))
    }

    /// The last use of each key that was ever used.
    pub fn key_uses(&self) -> Vec<KeyUse> {
        let callers = &self.snapshot().callers;
        let uses = callers.all_keys().filter_map(|(_, key)| {
            Some(KeyUse {
                digest_start: key.digest_start()?,
                last: callers.last_use(&key)?,
            })
        });
        uses.collect()
    }

    /// Notes the last uses of keys in an earlier run.
    pub fn recall_key_uses(&self, uses: &[KeyUse]) {
        let callers = &self.snapshot().callers;
        for known in uses {
            callers.recall(&known.digest_start, known.last);
        }
    }
}

/// A key as it is now.
#[derive(Debug)]
pub struct KeyFacts {
    pub caller: CallerName,
    pub label: KeyLabel,
    lapse: Option<Lapse>,
    dates: Option<Dates>,
    last_use: Option<Minute>,
    now: SystemTime,
}

impl KeyFacts {
    /// Whether it is accepted, and until when.
    pub fn state(&self) -> String {
        let dated = |time: Option<SystemTime>| {
            time.map_or_else(String::new, |time| clock::dated_time(time, self.now))
        };
        let not_before = self.dates.and_then(|dates| dates.not_before);
        let expires = self.dates.and_then(|dates| dates.expires);
        match self.lapse {
            None if expires.is_some() => format!("expires {}", dated(expires)),
            None => "valid".to_owned(),
            Some(Lapse::Disabled) => "disabled".to_owned(),
            Some(Lapse::Revoked) => "revoked".to_owned(),
            Some(Lapse::NotYetValid) => format!("not valid before {}", dated(not_before)),
            Some(Lapse::Expired) => format!("expired {}", dated(expires)),
        }
    }

    pub fn last_use(&self) -> String {
        let begin = self
            .last_use
            .map(|minute| SystemTime::UNIX_EPOCH + minute.begin());
        begin.map_or_else(
            || "none known".to_owned(),
            |begin| clock::dated_time(begin, self.now),
        )
    }
}
