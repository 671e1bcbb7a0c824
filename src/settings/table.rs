//! One definition of a setting: a row with key, type, default, bounds, description, and whether a reload applies a change.
//! A table of the settings file is one `table!` block, which expands to a plain struct and its rows. What is done with
//! settings (read, check, describe) is ordinary code over these rows; the macro only spares writing a key three times.
//! Rows read straight from the parsed TOML with its spans, so one pass finds every mistake.

use std::ops::{Deref, Range};

use serde_json::{Map, Value, json};
use toml::de::DeTable;

use crate::model::Flaw;
use crate::settings::findings::{Findings, Mark};
use crate::settings::kinds::{Field, Setting};
use crate::settings::near::closest;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Reload,
    Restart,
}

pub(super) struct Row<T> {
    pub(super) key: &'static str,
    pub(super) about: &'static [&'static str],
    pub(super) class: Class,
    /// Whether the value could be read.
    pub(super) read: fn(&mut T, Field<'_>, &mut Findings) -> bool,
    /// The value for the schema; null where nothing is set.
    pub(super) show: fn(&T) -> Value,
    pub(super) schema: fn() -> Value,
}

/// A struct with a row for each of its fields.
pub(super) trait Rows: Default + 'static {
    const ROWS: &'static [Row<Self>];
}

/// `key: Type = default, bounds, Class;`: the comment above a row is its description everywhere.
macro_rules! table {
    ($(#[$about:meta])+ $vis:vis struct $name:ident {
        $($(#[doc = $doc:literal])+ $key:ident: $kind:ty = $default:expr, $bounds:expr, $class:ident;)+
    }) => {
        $(#[$about])+
        #[derive(Debug, Clone)]
        $vis struct $name { $($(#[doc = $doc])+ $vis $key: $kind,)+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)+ }
            }
        }

        impl $crate::settings::table::Rows for $name {
            const ROWS: &'static [$crate::settings::table::Row<Self>] = &[$(
                $crate::settings::table::Row {
                    key: stringify!($key),
                    about: &[$($doc),+],
                    class: $crate::settings::table::Class::$class,
                    read: |table, field, findings| {
                        let read = <$kind as $crate::settings::kinds::Setting>::read(field, &$bounds, findings);
                        read.map(|value| table.$key = value).is_some()
                    },
                    show: |table| $crate::settings::kinds::Setting::show(&table.$key),
                    schema: || <$kind as $crate::settings::kinds::Setting>::schema(&$bounds),
                },
            )+];
        }
    };
}
pub(super) use table;

/// A table as it was read, and where it and its keys are in the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Table<T> {
    settings: T,
    span: Range<usize>,
    keys: Vec<Key>,
}

/// A key that the file has.
#[derive(Debug, Clone, Copy)]
struct Key {
    name: &'static str,
    value: Mark,
    is_good: bool,
}

impl<T> Deref for Table<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.settings
    }
}

impl<T> From<&Table<T>> for Mark {
    fn from(table: &Table<T>) -> Self {
        table.span().into()
    }
}

impl<T: Rows> Table<T> {
    /// Reads a table. What is wrong is reported, and its default is kept: settings with a mistake are never used.
    pub(super) fn of(table: &DeTable<'_>, span: Range<usize>, findings: &mut Findings) -> Self {
        let mut read = Self {
            settings: T::default(),
            span,
            keys: Vec::with_capacity(table.len()),
        };
        for (key, value) in table {
            let name: &str = key.get_ref();
            let Some(row) = T::ROWS.iter().find(|row| row.key == name) else {
                let meant = closest(name, T::ROWS.iter().map(|row| row.key));
                findings.mistake(key.span(), unknown::<T>(name, meant, findings));
                let names = T::ROWS.iter().map(|row| row.key);
                for name in names.filter(|known| Some(*known) == meant) {
                    read.note(name, value.span(), false);
                }
                continue;
            };
            let is_good = (row.read)(&mut read.settings, Field { key: row.key, value }, findings);
            read.note(row.key, value.span(), is_good);
        }
        read
    }
}

impl<T> Table<T> {
    fn note(&mut self, name: &'static str, value: Range<usize>, is_good: bool) {
        self.keys.push(Key {
            name,
            value: value.into(),
            is_good,
        });
    }

    /// The header of the table, or all of an inline table, in bytes.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The value of a key, if the file has it.
    pub(super) fn place(&self, key: &str) -> Option<Mark> {
        let mut keys = self.keys.iter();
        keys.find(|known| known.name == key && known.is_good)
            .map(|known| known.value)
    }

    /// Whether a mistake was reported about a key or its misspelling, so that another one would only follow from it.
    pub(super) fn is_reported(&self, key: &str) -> bool {
        self.keys.iter().any(|known| known.name == key && !known.is_good)
    }

    /// Reports that a key is missing, unless something else is known to be wrong with it.
    pub(super) fn missing(&self, key: &str, hint: &str, findings: &mut Findings) {
        if !self.is_reported(key) {
            let flaw = Flaw::new(format!("`{key}` is missing")).hint(hint);
            findings.mistake(self, flaw);
        }
    }

    /// A value that must be there.
    pub(super) fn require<'t, V>(
        &'t self,
        (key, value): (&str, &'t Option<V>),
        hint: &str,
        findings: &mut Findings,
    ) -> Option<&'t V> {
        if value.is_none() {
            self.missing(key, hint, findings);
        }
        value.as_ref()
    }
}

fn unknown<T: Rows>(key: &str, meant: Option<&str>, findings: &Findings) -> Flaw {
    // A key that is like no other may be a secret in the wrong place.
    let flaw = match meant.is_some() || findings.vocabulary().is_key(key) {
        true => Flaw::new(format!("unknown key `{key}`")),
        false => Flaw::new("unknown key"),
    };
    match meant {
        Some(meant) => flaw.hint(format!("did you mean `{meant}`?")),
        None => {
            let known: Vec<_> = T::ROWS.iter().map(|row| row.key).collect();
            flaw.hint(format!("known here are {}", known.join(", ")))
        }
    }
}

/// A table within a table, as `[connections]` is in the whole file.
impl<T: Rows> Setting for Table<T> {
    type Bounds = ();
    const LIST: &'static str = "a list of tables";

    fn read(field: Field<'_>, (): &(), findings: &mut Findings) -> Option<Self> {
        let table = field.expect("a table", field.value.get_ref().as_table(), findings)?;
        Some(Table::of(table, field.span(), findings))
    }

    fn schema((): &()) -> Value {
        schema::<T>()
    }
}

pub(super) fn schema<T: Rows>() -> Value {
    let defaults = T::default();
    let mut properties = Map::new();
    for row in T::ROWS {
        let mut schema = (row.schema)();
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), row.about.concat().trim().into());
            let default = (row.show)(&defaults);
            if !default.is_null() {
                schema.insert("default".to_owned(), default);
            }
            if row.class == Class::Restart {
                schema.insert("x-change".to_owned(), "restart".into());
            }
        }
        properties.insert(row.key.to_owned(), schema);
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}
