//! Which bodies a route accepts, by what their head states, and the type that the flow gets in place of that.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use crate::model::claims::printable;
use crate::model::media::FORM;
use crate::model::{ContentType, MediaRange, MediaType};
use crate::policy::body::reader::{BodyReader, Syntax};
use crate::problem::{Kind, Problem};
use crate::settings::ContentSettings;

/// How much is quoted of a type that is refused. Characters.
const TYPE_CHARS_MAX: usize = 64;

/// What a route demands of bodies.
#[derive(Debug)]
pub struct BodyRules {
    /// The types that are accepted; none for any.
    types: Option<Vec<MediaRange>>,
    /// What the flow gets in place of the stated type.
    replacement: Option<HeaderValue>,
    reader: Option<Arc<BodyReader>>,
    /// The type of what forms become, where they become JSON.
    forms_as: Option<HeaderValue>,
}

impl BodyRules {
    /// Nothing for a route that lets any body through as it is.
    pub fn build(settings: &ContentSettings) -> Option<Self> {
        let ContentSettings {
            types,
            replacement,
            reading,
        } = settings;
        if types.is_none() && replacement.is_none() && reading.is_none() {
            return None;
        }
        let replacement = replacement.as_ref().map(ContentType::as_header).cloned();
        let reads_forms = reading.as_ref().is_some_and(|reading| reading.form_to_json);
        let json = || HeaderValue::from_static("application/json");
        Some(Self {
            types: types.clone(),
            forms_as: reads_forms.then(|| replacement.clone().unwrap_or_else(json)),
            replacement,
            reader: reading.clone().map(|reading| Arc::new(BodyReader::new(reading))),
        })
    }

    /// What reads the bodies, where something does.
    pub fn reader(&self) -> Option<&Arc<BodyReader>> {
        self.reader.as_ref()
    }

    /// The type that a body of this syntax has for the flow, if it is not the stated one.
    pub fn content_type(&self, syntax: Syntax) -> Option<&HeaderValue> {
        match syntax {
            Syntax::Form => self.forms_as.as_ref(),
            Syntax::Json | Syntax::Other => self.replacement.as_ref(),
        }
    }

    /// Accepts a body by its head. Without a body nothing is asked of the head.
    ///
    /// # Errors
    /// [`Kind::BodyTypeRefused`], with the types that are accepted.
    pub fn accept(&self, headers: &HeaderMap) -> Result<Syntax, Problem> {
        let mut stated = headers.get_all(header::CONTENT_TYPE).iter();
        let (value, second) = (stated.next(), stated.next());
        if second.is_some() {
            return Err(self.refuse("the request has more than one Content-Type"));
        }
        let text = value.map(|value| value.to_str().unwrap_or_default());
        let media = text.and_then(MediaType::parse);
        let other = || match text {
            Some(text) => format!("the request has {}", printable(text, TYPE_CHARS_MAX)),
            None => "the request has no Content-Type".to_owned(),
        };
        if let Some(types) = &self.types {
            let is_listed = |media: &MediaType<'_>| types.iter().any(|range| range.covers(media));
            if !media.as_ref().is_some_and(is_listed) {
                return Err(self.refuse(&other()));
            }
        }
        if self.reader.is_none() {
            return Ok(Syntax::Other);
        }
        let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        let mut names = encodings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        if names.any(|name| !matches!(name.trim_ascii(), name if name.eq_ignore_ascii_case(b"identity"))) {
            return Err(self.refuse("the body is compressed; send it without Content-Encoding"));
        }
        if media.is_some_and(|media| !media.is_utf8) {
            return Err(self.refuse("the charset is not UTF-8"));
        }
        if self.forms_as.is_some() && media.is_some_and(|media| media.is_form()) {
            return Ok(Syntax::Form);
        }
        // A type in place of the stated one says what the body is.
        match self.replacement.is_some() || media.is_some_and(|media| media.is_json()) {
            true => Ok(Syntax::Json),
            false => Err(self.refuse(&other())),
        }
    }

    fn refuse(&self, why: &str) -> Problem {
        let names: Vec<String> = match (&self.types, &self.forms_as, &self.replacement) {
            (Some(types), ..) => types.iter().map(ToString::to_string).collect(),
            (None, _, Some(_)) => vec!["any type".to_owned()],
            (None, Some(_), None) => vec!["application/json".to_owned(), FORM.to_owned()],
            (None, None, None) => vec!["application/json".to_owned()],
        };
        let detail = format!("this address accepts {}; {why}", names.join(", "));
        Problem::from(Kind::BodyTypeRefused).detail(detail)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::BodyRules;
    use crate::model::{ContentType, MediaRange};
    use crate::policy::body::Syntax;
    use crate::settings::{ContentSettings, ReadingSettings};

    fn rules(types: &[&str], replacement: Option<&str>, reading: Option<ReadingSettings>) -> BodyRules {
        let ranges = types.iter().map(|text| MediaRange::parse(text).unwrap());
        BodyRules::build(&ContentSettings {
            types: (!types.is_empty()).then(|| ranges.collect()),
            replacement: replacement.map(|text| ContentType::parse(text).unwrap()),
            reading,
        })
        .unwrap()
    }

    fn accept(rules: &BodyRules, fields: &[(&str, &str)]) -> Result<Syntax, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        let accepted = rules.accept(&headers);
        accepted.map_err(|problem| problem.explanation().unwrap().to_owned())
    }

    const JSON: (&str, &str) = ("content-type", "application/json");
    const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
    const PLAIN: (&str, &str) = ("content-type", "text/plain");

    #[test]
    fn a_route_without_rules_has_none() {
        assert!(BodyRules::build(&ContentSettings::default()).is_none());
    }

    #[test]
    fn a_listed_type_is_accepted_and_a_refusal_names_the_list() {
        let rules = rules(&["application/json", "text/*"], None, None);
        assert_eq!(accept(&rules, &[JSON]), Ok(Syntax::Other));
        assert_eq!(
            accept(&rules, &[PLAIN, ("content-encoding", "gzip")]),
            Ok(Syntax::Other)
        );
        let why = accept(&rules, &[("content-type", "image/png")]).unwrap_err();
        assert_eq!(
            why,
            "this address accepts application/json, text/*; the request has image/png"
        );
        assert!(accept(&rules, &[]).unwrap_err().ends_with("has no Content-Type"));
        assert!(
            accept(&rules, &[JSON, JSON])
                .unwrap_err()
                .ends_with("more than one Content-Type")
        );
        assert!(accept(&rules, &[("content-type", "json")]).is_err());
    }

    #[test]
    fn what_is_read_is_json_in_utf_8_and_not_compressed() {
        let rules = rules(&[], None, Some(ReadingSettings::default()));
        assert_eq!(
            accept(&rules, &[JSON, ("content-encoding", "identity")]),
            Ok(Syntax::Json)
        );
        for fields in [
            &[PLAIN][..],
            &[FORM],
            &[],
            &[JSON, ("content-encoding", "gzip")],
            &[JSON, ("content-encoding", "identity, br")],
            &[JSON, ("content-encoding", "")],
            &[("content-type", "application/json; charset=utf-16")],
        ] {
            let why = accept(&rules, fields).unwrap_err();
            assert!(
                why.starts_with("this address accepts application/json; "),
                "{why}"
            );
        }
    }

    #[test]
    fn a_replaced_type_says_what_a_body_is() {
        let rules = rules(&[], Some("application/json"), Some(ReadingSettings::default()));
        for fields in [&[PLAIN][..], &[FORM], &[JSON], &[]] {
            assert_eq!(accept(&rules, fields), Ok(Syntax::Json));
        }
        assert_eq!(rules.content_type(Syntax::Json).unwrap(), "application/json");
    }

    #[test]
    fn forms_are_read_where_they_become_json() {
        let reading = ReadingSettings {
            form_to_json: true,
            ..ReadingSettings::default()
        };
        let rules = rules(&[], None, Some(reading));
        assert_eq!(accept(&rules, &[FORM]), Ok(Syntax::Form));
        assert_eq!(accept(&rules, &[JSON]), Ok(Syntax::Json));
        assert_eq!(rules.content_type(Syntax::Form).unwrap(), "application/json");
        assert_eq!(rules.content_type(Syntax::Json), None);
        let why = accept(&rules, &[PLAIN]).unwrap_err();
        assert!(
            why.contains("application/json, application/x-www-form-urlencoded"),
            "{why}"
        );
    }
}
