//! What a route lets through that it did not before, beside whom it admits: bodies, handshakes and duplicates.

use crate::model::MediaRange;
use crate::model::media::FORM;
use crate::settings::{ContentSettings, HandshakeSettings, RouteSettings, UnknownOutcome, WithoutId};

/// The sentences go on behind the name of the route.
pub(super) fn of_requests(earlier: &RouteSettings, later: &RouteSettings) -> Vec<String> {
    let mut found = of_types(&earlier.content, &later.content);
    found.extend(of_reading(&earlier.content, &later.content));
    found.extend(of_handshakes(&earlier.handshakes, &later.handshakes));
    found.extend(of_duplicates(earlier, later).into_iter().map(str::to_owned));
    found
        .into_iter()
        .map(|what| format!("route {} {what}", later.name))
        .collect()
}

fn of_types(earlier: &ContentSettings, later: &ContentSettings) -> Vec<String> {
    match (takes_any(earlier), takes_any(later)) {
        (true, _) => Vec::new(),
        (false, true) => vec!["accepts bodies of any type".to_owned()],
        (false, false) => {
            let ranges = accepted(later);
            let more = ranges.iter().filter(|range| !takes(earlier, range));
            more.map(|range| format!("accepts bodies of type {range}"))
                .collect()
        }
    }
}

/// Whether no type is refused. A body that is read as JSON has a type of JSON, unless the settings call it so.
fn takes_any(content: &ContentSettings) -> bool {
    content.types.is_none() && (content.reading.is_none() || content.replacement.is_some())
}

/// The types that a route accepts, those that are read by default included.
fn accepted(content: &ContentSettings) -> Vec<MediaRange> {
    if let Some(types) = &content.types {
        return types.clone();
    }
    let reads_forms = content
        .reading
        .as_ref()
        .is_some_and(|reading| reading.form_to_json);
    let names = [Some("application/json"), Some(FORM).filter(|_| reads_forms)];
    let ranges = names.into_iter().flatten().map(MediaRange::parse);
    ranges.filter_map(Result::ok).collect()
}

fn takes(content: &ContentSettings, range: &MediaRange) -> bool {
    let media = range.media_type();
    let is_json = content.types.is_none() && media.is_some_and(|media| media.is_json());
    let covers = |known: &MediaRange| known == range || media.is_some_and(|media| known.covers(&media));
    is_json || accepted(content).iter().any(covers)
}

fn of_reading(earlier: &ContentSettings, later: &ContentSettings) -> Option<String> {
    let earlier = earlier.reading.as_ref()?;
    let Some(later) = &later.reading else {
        return Some("passes bodies on without reading them".to_owned());
    };
    let schema = earlier.schema.as_ref()?;
    match &later.schema {
        None => Some("accepts JSON that fits no schema".to_owned()),
        Some(other) if other.sha256 != schema.sha256 => Some("checks bodies with another schema".to_owned()),
        Some(_) => None,
    }
}

fn of_handshakes(earlier: &HandshakeSettings, later: &HandshakeSettings) -> Vec<String> {
    let vendors = later.vendors.iter();
    let vendors = vendors.filter(|vendor| !earlier.vendors.contains(vendor));
    let vendors = vendors.map(|vendor| format!("answers handshakes of {}", vendor.name()));
    let tests = later.reachable.iter();
    let tests = tests.filter(|method| !earlier.reachable.contains(method));
    let tests = tests.map(|method| format!("answers {method} of anybody with 200"));
    let mut found: Vec<_> = vendors.chain(tests).collect();
    if let (Some(known), Some(place)) = (&earlier.verify_token_from, &later.verify_token_from)
        && known != place
    {
        found.push(format!("accepts the verify token in {place}"));
    }
    found
}

fn of_duplicates(earlier: &RouteSettings, later: &RouteSettings) -> Vec<&'static str> {
    let Some(earlier) = &earlier.duplicates else {
        return Vec::new();
    };
    let Some(later) = &later.duplicates else {
        return vec!["starts a run for each of two equal deliveries"];
    };
    let again = UnknownOutcome::Again;
    let lines = [
        (earlier.by != later.by, "recognizes duplicates by another id"),
        (
            earlier.without_id == WithoutId::Refuse && later.without_id == WithoutId::Pass,
            "accepts deliveries without an id",
        ),
        (
            earlier.unknown != again && later.unknown == again,
            "starts a second run where the outcome of the first is unknown",
        ),
    ];
    lines
        .into_iter()
        .filter_map(|(is_wider, line)| is_wider.then_some(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::model::clock;
    use crate::settings::openings;
    use crate::settings::sample::{Sample, TRIGGER};

    fn sample(lines: &str) -> Sample {
        let route = format!(
            "name = \"a\"\npath = \"/a\"\nanonymous = true\nidentity = \"contoso\"\n\
             methods = [\"POST\", \"PUT\"]\ntrigger = \"{TRIGGER}\"\n{lines}"
        );
        Sample::default()
            .with("route", &route)
            .file("one.json", "{}")
            .file("same.json", "{}")
            .file("other.json", "true")
    }

    /// What the second lines let in and the first do not; the reverse lets nothing in.
    fn opened(earlier: &str, later: &str, is_ordered: bool) -> Vec<String> {
        // Those in force are read without secrets.
        let config = |lines: &str| sample(lines).without_secrets().config();
        let found = openings(&config(earlier), &sample(later).config(), clock::wall());
        let back = openings(&config(later), &sample(earlier).config(), clock::wall());
        assert!(back.is_empty() || !is_ordered, "{earlier} {later} {back:?}");
        let lines = found
            .iter()
            .map(|line| line.strip_prefix("route a ").unwrap().to_owned());
        lines.collect()
    }

    #[test]
    fn a_route_that_demands_less_of_bodies_is_named() {
        const JSON: &str = "content_types = [\"application/json\"]";
        const SCHEMA: &str = "json_schema = \"one.json\"";
        for (earlier, later, lines) in [
            (JSON, "", &["accepts bodies of any type"][..]),
            (
                JSON,
                "content_types = [\"application/json\", \"text/*\"]",
                &["accepts bodies of type text/*"],
            ),
            (
                "content_types = [\"text/*\"]",
                "content_types = [\"text/plain\"]",
                &[],
            ),
            (
                SCHEMA,
                "",
                &[
                    "accepts bodies of any type",
                    "passes bodies on without reading them",
                ],
            ),
            (
                SCHEMA,
                "json_schema = \"one.json\"\nform_to_json = true",
                &["accepts bodies of type application/x-www-form-urlencoded"],
            ),
            (SCHEMA, "drop_nulls = true", &["accepts JSON that fits no schema"]),
            (
                "drop_nulls = true",
                "drop_nulls = true\ncontent_type_as = \"application/json\"",
                &["accepts bodies of any type"],
            ),
        ] {
            let is_ordered = !lines.is_empty();
            assert_eq!(opened(earlier, later, is_ordered), lines, "{earlier} {later}");
        }
        let other = "json_schema = \"other.json\"";
        assert_eq!(
            opened(SCHEMA, other, false),
            ["checks bodies with another schema"]
        );
        assert!(opened(SCHEMA, "json_schema = \"same.json\"", true).is_empty());
    }

    #[test]
    fn a_route_that_answers_more_handshakes_is_named() {
        let meta = "handshakes = [\"meta\"]\nverify_token = \"env:SECRET\"";
        for (earlier, later, line) in [
            ("", "handshakes = [\"dropbox\"]", "answers handshakes of dropbox"),
            ("", "reachable = [\"GET\"]", "answers GET of anybody with 200"),
            ("handshakes = [\"dropbox\"]", meta, "answers handshakes of meta"),
        ] {
            assert_eq!(opened(earlier, later, false), [line], "{later}");
        }
        assert!(opened(meta, meta, true).is_empty());
        let other = sample(&meta.replace("SECRET", "OTHER")).variable("OTHER", "canary-other");
        let known = sample(meta).without_secrets().config();
        assert_eq!(
            openings(&known, &other.config(), clock::wall()),
            ["route a accepts the verify token in environment variable OTHER"]
        );
    }

    #[test]
    fn a_route_that_starts_more_runs_is_named() {
        let table = |rest: &str| format!("[route.duplicates]\nby = \"idempotency-key\"\n{rest}");
        let known = table("");
        for (later, line) in [
            (String::new(), "starts a run for each of two equal deliveries"),
            (table("without_id = \"pass\""), "accepts deliveries without an id"),
            (
                table("unknown = \"again\""),
                "starts a second run where the outcome of the first is unknown",
            ),
        ] {
            assert_eq!(opened(&known, &later, true), [line], "{later}");
        }
        let other = "[route.duplicates]\nby = \"body\"";
        assert_eq!(
            opened(&known, other, false),
            ["recognizes duplicates by another id"]
        );
    }
}
