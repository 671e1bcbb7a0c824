//! Kinds of values: each says once how it is written, which bounds it has, how it is shown and described. Here are the
//! trait and what wraps other kinds; numbers are in `scalars.rs`.

use std::ops::{Deref, Range};

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::DeValue;

use crate::model::Flaw;
use crate::settings::findings::{Findings, Mark};

/// A value in the file, under the key that messages name.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a Spanned<DeValue<'a>>,
}

/// A kind of value. One that cannot be read is reported.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no kind of setting; implement `Setting` or `Word` for it"
)]
pub(super) trait Setting: Sized {
    type Bounds;
    /// What a list of these is called.
    const LIST: &'static str = "a list";

    fn read(field: Field<'_>, bounds: &Self::Bounds, findings: &mut Findings) -> Option<Self>;

    fn schema(bounds: &Self::Bounds) -> Value;

    /// As JSON, for the default in the schema; null where there is none.
    fn show(&self) -> Value {
        Value::Null
    }
}

/// What is expected of a count and of a duration, in the words of a mistake.
pub(super) const COUNT: &str = "a whole number, 0 or more";
pub(super) const DURATION: &str = "a duration such as \"30s\" or \"1h30m\"";

/// No bounds but the grammar.
pub(super) const ANY: () = ();

impl<'a> Field<'a> {
    pub(super) fn span(&self) -> Range<usize> {
        self.value.span()
    }

    pub(super) fn text(&self) -> Option<&'a str> {
        self.value.get_ref().as_str()
    }

    pub(super) fn string(&self, findings: &mut Findings) -> Option<&'a str> {
        self.expect("a string", self.text(), findings)
    }

    /// What was read, or a mistake that says what was expected.
    pub(super) fn expect<T>(&self, what: &str, read: Option<T>, findings: &mut Findings) -> Option<T> {
        if read.is_none() {
            let flaw = self.unexpected(what, findings);
            findings.mistake(self.span(), flaw);
        }
        read
    }

    pub(super) fn unexpected(&self, expected: &str, findings: &Findings) -> Flaw {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(list) if list.first().is_some_and(|first| first.get_ref().is_table()) => {
                "a list of tables"
            }
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let flaw = Flaw::new(format!("expected {expected}, found {found}"));
        let key = findings.header(&self.span()).unwrap_or(self.key);
        match (expected, found) {
            ("a list of tables", _) => flaw.hint(format!("write [[{key}]], with double brackets")),
            ("a table", "a list of tables") => flaw.hint(format!("write [{key}], with single brackets")),
            ("a list", "a string") => flaw.hint("put it in brackets, [\"...\"]"),
            ("true or false" | COUNT, "a string") => flaw.hint("write it without quotes"),
            (DURATION, "a whole number") => {
                flaw.hint("a duration has a unit and is written in quotes, for example \"10s\"")
            }
            ("a string", "a list" | "a list of tables" | "a table") => {
                flaw.hint(format!("write one text, {} = \"...\"", self.key))
            }
            ("a string", _) => flaw.hint("put it in quotes"),
            _ => flaw,
        }
    }
}

/// Text with a grammar that is parsed once.
pub(super) trait Word: Sized {
    const EXAMPLES: &'static [&'static str];

    fn parse(text: &str) -> Result<Self, Flaw>;

    /// For words that are a default.
    fn show(&self) -> Value {
        Value::Null
    }
}

/// Makes types words: `word!(Host: Self::parse, ["hooks.example.com"]);`
macro_rules! word {
    ($($name:ty: $parse:expr, $examples:expr;)+) => {$(
        impl $crate::settings::kinds::Word for $name {
            const EXAMPLES: &'static [&'static str] = &$examples;

            fn parse(text: &str) -> Result<Self, $crate::model::Flaw> {
                $parse(text)
            }
        }
    )+};
}
pub(super) use word;

impl<W: Word> Setting for W {
    type Bounds = ();

    fn read(field: Field<'_>, (): &(), findings: &mut Findings) -> Option<Self> {
        let text = field.string(findings)?;
        findings.keep(field.span(), W::parse(text))
    }

    fn schema((): &()) -> Value {
        json!({ "type": "string", "examples": W::EXAMPLES })
    }

    fn show(&self) -> Value {
        Word::show(self)
    }
}

/// Text that is read elsewhere, because it takes more than itself: a path, a reference to a secret, the name of a table.
impl Setting for String {
    type Bounds = ();

    fn read(field: Field<'_>, (): &(), findings: &mut Findings) -> Option<Self> {
        field.string(findings).map(str::to_owned)
    }

    fn schema((): &()) -> Value {
        json!({ "type": "string" })
    }
}

impl Setting for bool {
    type Bounds = ();

    fn read(field: Field<'_>, (): &(), findings: &mut Findings) -> Option<Self> {
        field.expect("true or false", field.value.get_ref().as_bool(), findings)
    }

    fn schema((): &()) -> Value {
        json!({ "type": "boolean" })
    }

    fn show(&self) -> Value {
        (*self).into()
    }
}

/// Makes an `enum` of two a switch: `switch!(Http2: Offered = true, Off = false);`
macro_rules! switch {
    ($name:ident: $on:ident = true, $off:ident = false) => {
        impl $crate::settings::kinds::Setting for $name {
            type Bounds = ();

            fn read(
                field: $crate::settings::kinds::Field<'_>,
                (): &(),
                findings: &mut $crate::settings::findings::Findings,
            ) -> Option<Self> {
                let is_on = <bool as $crate::settings::kinds::Setting>::read(field, &(), findings)?;
                Some(if is_on { Self::$on } else { Self::$off })
            }

            fn schema((): &()) -> serde_json::Value {
                <bool as $crate::settings::kinds::Setting>::schema(&())
            }

            fn show(&self) -> serde_json::Value {
                (*self == Self::$on).into()
            }
        }
    };
}
pub(super) use switch;

/// Makes an `enum` a closed set of words: `choice!(LogFormat: Auto = "auto", Json = "json");`
macro_rules! choice {
    ($name:ty: $($value:expr => $word:literal),+ $(,)?) => {
        impl $crate::settings::kinds::Setting for $name {
            type Bounds = ();

            fn read(
                field: $crate::settings::kinds::Field<'_>,
                (): &(),
                findings: &mut $crate::settings::findings::Findings,
            ) -> Option<Self> {
                field.choose(&[$(($word, $value)),+], findings)
            }

            fn schema((): &()) -> serde_json::Value {
                serde_json::json!({ "type": "string", "enum": [$($word),+] })
            }

            fn show(&self) -> serde_json::Value {
                let words = [$(($word, $value)),+];
                let word = words.iter().find(|(_, value)| value == self);
                word.map(|(word, _)| *word).into()
            }
        }
    };
}
pub(super) use choice;

impl Field<'_> {
    pub(super) fn choose<T: Copy>(&self, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let text = self.string(findings)?;
        let value = words
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        let value = value.ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            Flaw::new("unknown value").hint(format!("write {}", known.join(" or ")))
        });
        findings.keep(self.span(), value)
    }
}

/// A value with its place, for rules that point at it later.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    value: T,
    span: Range<usize>,
}

impl<T> At<T> {
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

impl<T> From<&At<T>> for Mark {
    fn from(value: &At<T>) -> Self {
        value.span().into()
    }
}

impl<T> Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Setting> Setting for At<T> {
    type Bounds = T::Bounds;
    const LIST: &'static str = T::LIST;

    fn read(field: Field<'_>, bounds: &T::Bounds, findings: &mut Findings) -> Option<Self> {
        let value = T::read(field, bounds, findings)?;
        let span = field.span();
        Some(Self { value, span })
    }

    fn schema(bounds: &T::Bounds) -> Value {
        T::schema(bounds)
    }

    fn show(&self) -> Value {
        self.value.show()
    }
}

/// A setting that may be left out.
impl<T: Setting> Setting for Option<T> {
    type Bounds = T::Bounds;

    fn read(field: Field<'_>, bounds: &T::Bounds, findings: &mut Findings) -> Option<Self> {
        T::read(field, bounds, findings).map(Some)
    }

    fn schema(bounds: &T::Bounds) -> Value {
        T::schema(bounds)
    }

    fn show(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::show)
    }
}

/// A list. Every element that is wrong is reported.
impl<T: Setting> Setting for Vec<T> {
    type Bounds = T::Bounds;

    fn read(field: Field<'_>, bounds: &T::Bounds, findings: &mut Findings) -> Option<Self> {
        let list = field.expect(T::LIST, field.value.get_ref().as_array(), findings)?;
        let elements = list
            .iter()
            .map(|value| T::read(Field { value, ..field }, bounds, findings));
        elements.collect::<Vec<_>>().into_iter().collect()
    }

    fn schema(bounds: &T::Bounds) -> Value {
        json!({ "type": "array", "items": T::schema(bounds) })
    }

    fn show(&self) -> Value {
        match self.is_empty() {
            true => Value::Null,
            false => self.iter().map(T::show).collect(),
        }
    }
}
