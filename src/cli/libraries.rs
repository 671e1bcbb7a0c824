//! Log lines of other crates. Anyone who can connect can make a TLS or HTTP/2 library log a warning, before
//! any check of ours, so these lines are limited in rate and length, escaped, and dropped first when the log
//! is full. Levels below `warn` are not logged at all: there, libraries may print request data.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;

use crate::cli::lines::{Lines, Notice};
use crate::gateway::log::{Form, Sink};

/// Burst of lines that one code location may log, and the interval of its lines after that.
const LOCATION_BURST: u32 = 5;
const PLACE_PERIOD: Duration = Duration::from_secs(1);
/// The same for all code locations together.
const BURST: u32 = 50;
const PERIOD: Duration = Duration::from_millis(100);
/// Code locations that are counted separately; libraries have far fewer that log at these levels.
const LOCATIONS_MAX: usize = 256;
/// Longest text of a line, escaped. Bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Longest name of a code location. Bytes.
const TARGET_BYTES_MAX: usize = 64;

/// The filter for lines of other crates, from the level in the settings.
pub(super) fn level(level: Level) -> LevelFilter {
    LevelFilter::from_level(level.min(Level::WARN))
}

pub(super) struct Libraries {
    out: Lines,
    form: Form,
    throttle: Throttle,
}

impl Libraries {
    pub(super) fn new(out: Lines, form: Form) -> Self {
        Self {
            out,
            form,
            throttle: Throttle::new(Instant::now()),
        }
    }
}

impl<S: Subscriber> Layer<S> for Libraries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut location = CodeLocation::of(event);
        event.record(&mut location);
        // Checked first: a line that is not written is not formatted either.
        let Some(suppressed) = self.throttle.admit(&location, Instant::now()) else {
            return;
        };
        let mut text = Bounded::new(TEXT_BYTES_MAX);
        event.record(&mut text);
        let level = *event.metadata().level();
        let mut notice = Notice::new(level, &location.target.text, &text.text);
        notice.suppressed = (suppressed > 0).then_some(suppressed);
        self.out.minor(&notice.line(self.form));
    }
}

/// The code location that a line comes from. Lines that come through the `log` crate name it in fields; the
/// file name is left out, since it is a path of the build machine.
struct CodeLocation {
    target: Bounded,
    line: u64,
}

impl CodeLocation {
    fn of(event: &Event<'_>) -> Self {
        let metadata = event.metadata();
        Self {
            target: Bounded::of(metadata.target(), TARGET_BYTES_MAX),
            line: metadata.line().map_or(0, u64::from),
        }
    }
}

impl Visit for CodeLocation {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            self.target = Bounded::of(value, TARGET_BYTES_MAX);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "log.line" {
            self.line = value;
        }
    }
}

/// A text of limited length without control characters, for data that others sent.
struct Bounded {
    text: String,
    bytes_max: usize,
    full: bool,
}

impl Bounded {
    fn new(bytes_max: usize) -> Self {
        Self {
            text: String::new(),
            bytes_max,
            full: false,
        }
    }

    fn of(text: &str, bytes_max: usize) -> Self {
        let mut bounded = Self::new(bytes_max);
        let _ = bounded.write_str(text);
        bounded
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for found in text.chars() {
            if self.full {
                return Err(fmt::Error);
            }
            let before = self.text.len();
            match found {
                // Unescaped here: quotation marks are escaped when the line is written.
                '"' | '\'' | '\\' => self.text.push(found),
                _ => self.text.extend(found.escape_debug()),
            }
            if self.text.len() > self.bytes_max {
                self.text.truncate(before);
                self.text.push('\u{2026}');
                self.full = true;
            }
        }
        Ok(())
    }
}

/// The text of a line: its message, then its other fields.
impl Visit for Bounded {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let gap = if self.text.is_empty() { "" } else { " " };
        // A full text returns an error, which stops the formatting of a long one.
        let _ = match field.name() {
            name if name.starts_with("log.") => Ok(()),
            "message" => write!(self, "{gap}{value:?}"),
            name => write!(self, "{gap}{name}={value:?}"),
        };
    }
}

/// Limits how many lines are written, for each code location and in total.
struct Throttle {
    hasher: RandomState,
    bursts: Mutex<Burst>,
}

struct Burst {
    all: Instant,
    locations: HashMap<u64, RecentLines>,
}

struct RecentLines {
    /// When all its lines so far would have been written at the steady rate (generic cell rate algorithm).
    due: Instant,
    suppressed: u64,
}

impl Throttle {
    fn new(now: Instant) -> Self {
        Self {
            hasher: RandomState::new(),
            bursts: Mutex::new(Burst {
                all: now,
                locations: HashMap::new(),
            }),
        }
    }

    /// Decides whether a line of this location is written; if so, returns how many were suppressed since the
    /// last one.
    fn admit(&self, location: &CodeLocation, now: Instant) -> Option<u64> {
        let key = self
            .hasher
            .hash_one((location.target.text.as_str(), location.line));
        let mut bursts = self.bursts.lock().unwrap_or_else(PoisonError::into_inner);
        let Burst { all, locations } = &mut *bursts;
        // Locations come from code, so they are few; this keeps the map bounded anyway.
        let key = if locations.len() < LOCATIONS_MAX || locations.contains_key(&key) {
            key
        } else {
            0
        };
        let recent = locations.entry(key).or_insert(RecentLines {
            due: now,
            suppressed: 0,
        });
        let room =
            has_room(recent.due, LOCATION_BURST, PLACE_PERIOD, now) && has_room(*all, BURST, PERIOD, now);
        if !room {
            recent.suppressed += 1;
            return None;
        }
        recent.due = recent.due.max(now) + PLACE_PERIOD;
        *all = (*all).max(now) + PERIOD;
        Some(std::mem::take(&mut recent.suppressed))
    }
}

fn has_room(due: Instant, burst: u32, period: Duration, now: Instant) -> bool {
    due.saturating_duration_since(now) <= period * (burst - 1)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use proptest::prelude::{any, proptest};
    use tokio::time::Instant;
    use tracing::Level;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::{Bounded, CodeLocation, LOCATIONS_MAX, Libraries, Throttle, level};
    use crate::cli::lines::Lines;
    use crate::gateway::log::Form;

    fn location(target: &str, line: u64) -> CodeLocation {
        CodeLocation {
            target: Bounded::of(target, 64),
            line,
        }
    }

    #[test]
    fn libraries_log_from_warn_on_and_only_as_far_as_the_settings_say() {
        for (set, heard) in [
            (Level::TRACE, LevelFilter::WARN),
            (Level::INFO, LevelFilter::WARN),
            (Level::WARN, LevelFilter::WARN),
            (Level::ERROR, LevelFilter::ERROR),
        ] {
            assert_eq!(level(set), heard, "{set}");
        }
    }

    #[test]
    fn a_place_has_a_few_lines_at_once_then_one_a_second_with_the_number_left_out() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        let noisy = location("rustls::msgs", 1);
        let written = (0..1000).filter(|_| throttle.admit(&noisy, now).is_some());
        assert_eq!(written.count(), 5);
        assert_eq!(
            throttle.admit(&location("h2", 7), now),
            Some(0),
            "another location"
        );
        let later = now + Duration::from_secs(1);
        assert_eq!(throttle.admit(&noisy, later), Some(995));
        assert_eq!(throttle.admit(&noisy, later), None);
    }

    #[test]
    fn many_places_share_a_few_lines_and_a_bounded_memory() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        let written = (0..10_000).filter(|line| throttle.admit(&location("any", *line), now).is_some());
        assert_eq!(written.count(), 50);
        assert!(throttle.bursts.lock().unwrap().locations.len() <= LOCATIONS_MAX + 1);
    }

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_is_short_and_escaped() {
        for form in [Form::Json, Form::Text] {
            let captured = Captured::default();
            let (lines, farewell) = Lines::start(captured.clone(), std::io::sink(), form).unwrap();
            let subscriber = tracing_subscriber::registry().with(Libraries::new(lines, form));
            tracing::subscriber::with_default(subscriber, || {
                let hostile = "a\nb\u{1b}[31m\u{202e}".repeat(1000);
                tracing::warn!(
                    target: "library",
                    hostile,
                    "said {hostile}"
                );
            });
            drop(farewell);
            let written = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
            assert!(
                written.contains("said a") && written.contains("library"),
                "{written}"
            );
            assert_eq!(written.matches('\n').count(), 1, "{written:?}");
            assert!(!written.contains(['\u{1b}', '\u{202e}']), "{written:?}");
            assert!(written.len() < 1500, "{}", written.len());
        }
    }

    proptest! {
        #[test]
        fn no_text_grows_beyond_its_limit_or_holds_control_characters(
            pieces in proptest::collection::vec(any::<String>(), 0..20), bytes_max in 0_usize..200
        ) {
            let mut bounded = Bounded::new(bytes_max);
            for piece in &pieces {
                let _ = bounded.write_str(piece);
            }
            assert!(bounded.text.len() <= bytes_max + '\u{2026}'.len_utf8());
            assert!(!bounded.text.chars().any(char::is_control));
        }
    }
}
