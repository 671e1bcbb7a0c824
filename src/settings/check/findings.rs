//! Collects what is wrong while the check goes on. It knows which keys were already reported, so that one
//! mistake does not bring forth another, and turns everything into the report at the end.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

use crate::settings::leaf::{At, Table};
use crate::settings::mask::HiddenWords;
use crate::settings::mistake;
use crate::settings::mistake::{
    Flaw, MISTAKES_MAX, Mistake, More, Place, Report, Severity, Source, TextKind,
};

/// A place in one of the files; cheap to keep for every key of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    source: u32,
    start: u32,
    end: u32,
}

impl Mark {
    fn new(source: usize, span: &Range<usize>) -> Self {
        // No file that is read has 4 GiB, nor are there so many.
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            source: short(source),
            start: short(span.start),
            end: short(span.end),
        }
    }
}

impl From<Range<usize>> for Mark {
    fn from(span: Range<usize>) -> Self {
        Self::new(0, &span)
    }
}

impl<T> From<&At<T>> for Mark {
    fn from(value: &At<T>) -> Self {
        value.span().into()
    }
}

/// Where the table that is the whole file stands.
pub(super) const ROOT: Range<usize> = 0..0;

impl<T> From<&Table<T>> for Mark {
    fn from(table: &Table<T>) -> Self {
        table.span().into()
    }
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Findings {
    name: String,
    /// The settings file first, lists behind it.
    sources: Vec<Source>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    more: More,
    more_warnings: More,
    reported: HashSet<(usize, usize, String)>,
    /// What the settings file says and no sentence may repeat.
    hidden: OnceCell<HiddenWords>,
}

impl Findings {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            hidden: OnceCell::new(),
            sources: vec![Source::new(name, text, TextKind::Settings)],
            mistakes: Vec::new(),
            warnings: Vec::new(),
            more: More::Complete,
            more_warnings: More::Complete,
            reported: HashSet::new(),
        }
    }

    /// Adds a list that marks can point into.
    pub(super) fn add_source(&mut self, name: &str, text: &Rc<String>, kind: TextKind) -> usize {
        self.sources.push(Source::shared(name, text, kind));
        self.sources.len() - 1
    }

    /// A place in a list.
    pub(super) fn mark(source: usize, span: Range<usize>) -> Mark {
        Mark::new(source, &span)
    }

    fn place(&self, mark: Mark) -> Place {
        let Mark { source, start, end } = mark;
        match self.sources.get(source as usize) {
            Some(source) => source.place(start as usize..end as usize),
            None => Place::file(&self.name),
        }
    }

    /// A flaw that says nothing of what must not be printed.
    fn discreet(&self, flaw: Flaw) -> Flaw {
        let words = || self.sources.first().map(Source::hidden_words).unwrap_or_default();
        let hidden = self.hidden.get_or_init(words);
        Flaw {
            what: hidden.hide_in(flaw.what),
            hint: flaw.hint.map(|hint| hidden.hide_in(hint)),
        }
    }

    pub(super) fn mistake(&mut self, mark: impl Into<Mark>, flaw: Flaw) {
        if !self.has_room() {
            return;
        }
        let (place, flaw) = (self.place(mark.into()), self.discreet(flaw));
        self.mistakes.push(Mistake::new(Severity::Mistake, flaw, place));
    }

    /// A mistake with two places; `label` says what the second has to do with the first.
    pub(super) fn clash(&mut self, mark: impl Into<Mark>, flaw: Flaw, other: impl Into<Mark>, label: &str) {
        if !self.has_room() {
            return;
        }
        let (place, other) = (self.place(mark.into()), self.place(other.into()));
        let flaw = self.discreet(flaw);
        self.mistakes
            .push(Mistake::new(Severity::Mistake, flaw, place).beside(other, label));
    }

    pub(super) fn warn(&mut self, mark: impl Into<Mark>, flaw: Flaw) {
        self.note(Severity::Warning, mark, flaw);
    }

    /// Something that keeps a part of the settings from serving, and that time may have brought about.
    pub(super) fn lapse(&mut self, mark: impl Into<Mark>, flaw: Flaw) {
        self.note(Severity::Lapse, mark, flaw);
    }

    fn note(&mut self, severity: Severity, mark: impl Into<Mark>, flaw: Flaw) {
        if self.warnings.len() >= MISTAKES_MAX {
            self.more_warnings = More::Cut;
            return;
        }
        let (place, flaw) = (self.place(mark.into()), self.discreet(flaw));
        self.warnings.push(Mistake::new(severity, flaw, place));
    }

    /// Keeps a good value and reports a bad one.
    pub(super) fn keep<T>(&mut self, mark: impl Into<Mark>, result: Result<T, Flaw>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(flaw) => {
                self.mistake(mark, flaw);
                None
            }
        }
    }

    /// Remembers that something is wrong with a key, so that it is not called missing as well.
    pub(super) fn report_key(&mut self, table: Range<usize>, key: &str) {
        self.reported.insert((table.start, table.end, key.to_owned()));
    }

    pub(super) fn was_reported(&self, table: Range<usize>, key: &str) -> bool {
        self.reported.contains(&(table.start, table.end, key.to_owned()))
    }

    /// Reports that a table lacks a key, unless something else is known to be wrong with that key.
    pub(super) fn missing(&mut self, table: Range<usize>, key: &str, hint: &str) {
        if self.was_reported(table.clone(), key) {
            return;
        }
        let flaw = Flaw::new(format!("`{key}` is missing")).hint(hint);
        if table == ROOT {
            // The whole file lacks it, so no line is to blame.
            if !self.has_room() {
                return;
            }
            self.mistakes
                .push(Mistake::new(Severity::Mistake, flaw, Place::file(&self.name)));
            return;
        }
        self.mistake(table, flaw);
    }

    /// How much was wrong so far.
    pub(super) fn len(&self) -> usize {
        self.mistakes.len()
    }

    /// Whether another mistake will be kept; asking counts as having had one.
    pub(super) fn has_room(&mut self) -> bool {
        if self.mistakes.len() < MISTAKES_MAX {
            return true;
        }
        self.more = More::Cut;
        false
    }

    /// The report, if anything was wrong, and the warnings otherwise.
    pub(super) fn finish(mut self) -> Result<Vec<Mistake>, Report> {
        if self.more_warnings == More::Cut {
            let flaw = Flaw::new(format!(
                "there are more than {MISTAKES_MAX} warnings; the rest is not shown"
            ));
            self.warnings
                .push(Mistake::new(Severity::Warning, flaw, Place::file(&self.name)));
        }
        if self.mistakes.is_empty() {
            mistake::sort(&self.name, &mut self.warnings);
            return Ok(self.warnings);
        }
        self.mistakes.append(&mut self.warnings);
        Err(Report::new(&self.name, self.mistakes, self.more))
    }
}
