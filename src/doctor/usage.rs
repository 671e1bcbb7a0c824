//! Reports keys that nobody uses, as counted by the gateway that runs with these settings.

use std::time::Duration;

use crate::doctor::report::{Check, count};
use crate::doctor::running::{ask, at_home};
use crate::gateway::KeyUsage;
use crate::model::{FixedBy, Remedy};
use crate::settings::Config;

const NAME: &str = "keys";
/// A key of a monthly job is used at least once within this time.
const UNUSED_AFTER: Duration = Duration::from_secs(35 * 86_400);
const NAMED: usize = 5;

pub(super) async fn examine(config: &Config) -> Vec<Check> {
    if config.callers.iter().all(|caller| caller.keys.is_empty()) {
        return Vec::new();
    }
    let Some(admin) = &config.admin else {
        return vec![Check::note(
            NAME,
            "the admin listener is off, so it is unknown which keys nobody uses; the access log has each key \
             as `key` beside `caller`",
        )];
    };
    let address = at_home(admin.address);
    match ask(address, "/keys/unused").await {
        Ok(usage) => vec![judge(&usage)],
        Err(why) => vec![Check::note(
            NAME,
            format!(
                "no gateway reports at http://{address}/keys/unused which keys nobody uses ({}); the access \
                 log has each key as `key` beside `caller`",
                why.why()
            ),
        )],
    }
}

fn judge(usage: &KeyUsage) -> Check {
    let since = Duration::from_secs(usage.since_seconds);
    let time = match usage.since_seconds / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    };
    if usage.unused == 0 {
        let says = format!("each valid key was used since the gateway started, {time} ago");
        return Check::ok(NAME, says);
    }
    let safe = crate::model::claims::safe;
    let named = usage.named.iter().take(NAMED);
    let named: Vec<_> = named
        .map(|unused| format!("{} of {}", safe(&unused.key), safe(&unused.caller)))
        .collect();
    let more = usage.unused.saturating_sub(named.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let says = format!(
        "{} of {} were not used since the gateway started, {time} ago: {}{more}",
        usage.unused,
        count(usage.keys, "key", "keys"),
        named.join(", ")
    );
    if since < UNUSED_AFTER {
        return Check::note(NAME, format!("{says}; a monthly caller may still come"));
    }
    let what = "Ask the owner of the key, and remove it from the settings if nobody needs it.";
    Check::warn(NAME, says, Remedy::new(FixedBy::Operator, what))
}

#[cfg(test)]
mod tests {
    use super::{UNUSED_AFTER, judge};
    use crate::doctor::report::Verdict;
    use crate::gateway::{KeyUsage, UnusedKey};

    fn usage(since_seconds: u64, unused: usize) -> KeyUsage {
        let key = |number| UnusedKey {
            caller: "erp".to_owned(),
            key: format!("k{number}"),
        };
        KeyUsage {
            since_seconds,
            keys: 9,
            unused,
            named: (0..unused).map(key).collect(),
        }
    }

    #[test]
    fn keys_are_called_unused_once_a_monthly_caller_would_have_come() {
        let check = judge(&usage(UNUSED_AFTER.as_secs(), 7));
        assert_eq!(check.verdict, Verdict::Warn);
        assert!(
            check.says.starts_with("7 of 9 keys were not used")
                && check.says.contains("k4 of erp and 2 more"),
            "{}",
            check.says
        );
        assert_eq!(
            judge(&usage(UNUSED_AFTER.as_secs() - 1, 7)).verdict,
            Verdict::Note
        );
        assert_eq!(judge(&usage(3, 0)).verdict, Verdict::Ok);
    }
}
