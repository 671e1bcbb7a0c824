//! Warns ahead of the expiry of callers' keys: each key once at 30, 7 and 1 days before, and when it has expired. What was warned
//! about is remembered here and not with the settings, so that a reload warns of nothing again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::SystemTime;

use crate::model::{clock, locked};
use crate::policy::Callers;
use crate::policy::key::{DigestStart, Lapse};
use crate::secrets::step_to;

/// Days before the expiry.
const DAYS: [u32; 3] = [30, 7, 1];
/// Keys that one line names, and lines of one look.
const NAMED_MAX: usize = 3;
const LINES_MAX: usize = 20;

/// The keys that expire soon, and what was logged of them.
#[derive(Debug, Default)]
pub(super) struct KeyExpiry {
    reached: Mutex<HashMap<DigestStart, Reached>>,
}

#[derive(Debug, Clone, Copy)]
struct Reached {
    expires: SystemTime,
    step: usize,
}

/// Keys that expire on one day, with the first of their names.
#[derive(Debug)]
struct Due {
    expires: SystemTime,
    count: usize,
    named: Vec<String>,
}

impl KeyExpiry {
    /// Logs the warnings that are due now.
    pub(super) fn look(&self, callers: &Callers, now: SystemTime) {
        for line in self.due(callers, now) {
            tracing::warn!("{line}");
        }
    }

    fn due(&self, callers: &Callers, now: SystemTime) -> Vec<String> {
        let mut reached = locked(&self.reached);
        let mut next = HashMap::new();
        let mut days: BTreeMap<String, Due> = BTreeMap::new();
        for (caller, key) in callers.all_keys() {
            let dates = key.terms().and_then(|terms| terms.dates);
            let Some(expires) = dates.and_then(|dates| dates.expires) else {
                continue;
            };
            let (Some(step), Some(start)) = (step_to(&DAYS, expires, now), key.digest_start()) else {
                continue;
            };
            if matches!(callers.lapse(&key, now), Some(Lapse::Disabled | Lapse::Revoked)) {
                continue;
            }
            let before = reached.get(&start).filter(|before| before.expires == expires);
            let is_due = match before {
                Some(before) => before.step < step,
                // What has expired already is reported by the check of the settings.
                None => step < DAYS.len(),
            };
            if step < DAYS.len() {
                // A clock that is set back and forth reaches a step again, and nobody need hear of it.
                let step = before.map_or(step, |before| before.step.max(step));
                next.insert(start, Reached { expires, step });
            }
            if !is_due {
                continue;
            }
            let label = key.label().map_or_else(String::new, |label| label.to_string());
            let day = clock::dated_time(expires, now).chars().take(10).collect();
            let due = days.entry(day).or_insert_with(|| Due {
                expires,
                count: 0,
                named: Vec::new(),
            });
            due.count += 1;
            if due.named.len() < NAMED_MAX {
                due.named.push(format!("key {label} of caller {caller}"));
            }
        }
        *reached = next;
        drop(reached);
        let more: usize = days.values().skip(LINES_MAX).map(|due| due.count).sum();
        let mut lines: Vec<_> = days.values().take(LINES_MAX).map(|due| due.line(now)).collect();
        if more > 0 {
            lines.push(format!(
                "{more} more keys expire soon: `flowgate key list` shows them"
            ));
        }
        lines
    }
}

impl Due {
    fn line(&self, now: SystemTime) -> String {
        let date = clock::dated_time(self.expires, now);
        let names = self.named.join(", ");
        let what = match self.expires > now {
            true => "expires",
            false => "expired",
        };
        match self.count {
            1 => format!("{names} {what} {date}; `flowgate key rotate` makes its successor"),
            count => {
                let what = what.trim_end_matches('s');
                let more = match count - self.named.len() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                format!("{count} keys {what} {date}: {names}{more}; `flowgate key rotate` makes successors")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use super::{KeyExpiry, LINES_MAX};
    use crate::model::{CallerName, KeyLabel};
    use crate::policy::{CallerNumbers, Callers};
    use crate::settings::{CallerSettings, KeyDigest, KeySettings, KeyState};

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;
    const DAY: Duration = Duration::from_secs(86_400);

    fn key(label: &str, expires: SystemTime) -> KeySettings {
        KeySettings {
            expires: Some(expires),
            ..KeySettings::new(
                KeyLabel::parse(label).unwrap(),
                KeyDigest::of(label.as_bytes(), None),
            )
        }
    }

    fn callers(keys: Vec<KeySettings>) -> Callers {
        let caller = CallerSettings {
            keys: Arc::new(keys.into_iter().collect()),
            ..CallerSettings::new(CallerName::parse("shop").unwrap())
        };
        Callers::build(&[caller], None, &CallerNumbers::default()).unwrap()
    }

    #[test]
    fn each_step_is_logged_once_on_the_way_to_the_expiry() {
        let (expiry, keys) = (KeyExpiry::default(), || {
            callers(vec![key("first", NOW + 40 * DAY)])
        });
        let mut logged = Vec::new();
        for hour in 0..42 * 24 {
            // Settings that are loaded anew each time.
            let now = NOW + Duration::from_secs(3600) * hour;
            logged.extend(expiry.due(&keys(), now));
        }
        assert_eq!(
            logged,
            [
                "key first of caller shop expires 1970-02-10 (in 30 days); `flowgate key rotate` makes its successor",
                "key first of caller shop expires 1970-02-10 (in 7 days); `flowgate key rotate` makes its successor",
                "key first of caller shop expires 1970-02-10 (in 1 day); `flowgate key rotate` makes its successor",
                "key first of caller shop expired 1970-02-10 00:00:00 UTC (now); `flowgate key rotate` makes its \
                 successor",
            ]
        );
    }

    #[test]
    fn keys_of_one_day_are_one_line_and_lines_have_an_end() {
        let one_day: Vec<_> = (0..12)
            .map(|number| key(&format!("k{number}"), NOW + 3 * DAY))
            .collect();
        let lines = KeyExpiry::default().due(&callers(one_day), NOW);
        assert_eq!(
            lines,
            [
                "12 keys expire 1970-01-04 (in 3 days): key k0 of caller shop, key k1 of caller shop, key k2 of caller shop and \
              9 more; `flowgate key rotate` makes successors"
            ]
        );
        let many = (1..29)
            .map(|number| key(&format!("k{number}"), NOW + number * DAY))
            .collect();
        let lines = KeyExpiry::default().due(&callers(many), NOW);
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert!(lines[LINES_MAX].starts_with("8 more keys"), "{lines:?}");
    }

    #[test]
    fn a_key_that_nobody_can_use_needs_no_warning() {
        let off = KeySettings {
            state: KeyState::Disabled,
            ..key("off", NOW + DAY)
        };
        let expiry = KeyExpiry::default();
        let keys = vec![off, key("old", NOW), key("late", NOW + 31 * DAY)];
        assert!(
            expiry
                .due(&callers(keys), NOW + Duration::from_secs(1))
                .is_empty()
        );
        // Another date is another expiry.
        let dated = |days| callers(vec![key("first", NOW + days * DAY)]);
        assert_eq!(expiry.due(&dated(7), NOW).len(), 1);
        assert_eq!(expiry.due(&dated(7), NOW).len(), 0);
        assert_eq!(expiry.due(&dated(6), NOW).len(), 1);
    }
}
