//! Collects mistakes during the check, and turns them into the report at the end.

use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use crate::model::Flaw;
use crate::settings::mask::{HiddenWords, Vocabulary};
use crate::settings::mistake;
use crate::settings::mistake::{MISTAKES_MAX, Mistake, More, Place, Report, Severity, Source, TextKind};

/// A place in one of the files, small enough to keep for every key of a long list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
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

/// The place of the table that is the whole file.
pub(crate) const ROOT: Range<usize> = 0..0;

#[derive(Debug)]
pub(crate) struct Findings {
    name: String,
    /// The settings file first, lists behind it.
    sources: Vec<Source>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
    more: More,
    more_warnings: More,
    vocabulary: &'static Vocabulary,
    /// What the settings file says and no sentence may repeat.
    hidden: OnceCell<HiddenWords>,
}

impl Findings {
    pub(crate) fn new(name: &str, text: &str, vocabulary: &'static Vocabulary) -> Self {
        Self {
            name: name.to_owned(),
            hidden: OnceCell::new(),
            sources: vec![Source::new(name, text, TextKind::Settings(vocabulary))],
            mistakes: Vec::new(),
            warnings: Vec::new(),
            more: More::Complete,
            more_warnings: More::Complete,
            vocabulary,
        }
    }

    /// Adds a list that marks can point into.
    pub(crate) fn add_source(&mut self, name: &str, text: &Rc<String>, kind: TextKind) -> usize {
        self.sources.push(Source::shared(name, text, kind));
        self.sources.len() - 1
    }

    pub(crate) fn mark(source: usize, span: Range<usize>) -> Mark {
        Mark::new(source, &span)
    }

    fn place(&self, mark: Mark) -> Place {
        // The whole file lacks something, so no line is to blame.
        if mark == Mark::from(ROOT) {
            return Place::file(&self.name);
        }
        let Mark { source, start, end } = mark;
        match self.sources.get(source as usize) {
            Some(source) => source.place(start as usize..end as usize),
            None => Place::file(&self.name),
        }
    }

    /// A finding without anything that must not be printed.
    fn finding(&self, severity: Severity, mark: Mark, flaw: Flaw) -> Mistake {
        let words = || self.sources.first().map(Source::hidden_words).unwrap_or_default();
        let hidden = self.hidden.get_or_init(words);
        let flaw = Flaw {
            what: hidden.hide_in(flaw.what),
            hint: flaw.hint.map(|hint| hidden.hide_in(hint)),
        };
        Mistake::new(severity, flaw, self.place(mark))
    }

    pub(crate) fn mistake(&mut self, mark: impl Into<Mark>, flaw: Flaw) {
        if self.has_room() {
            let mistake = self.finding(Severity::Mistake, mark.into(), flaw);
            self.mistakes.push(mistake);
        }
    }

    /// A mistake with two places; `label` describes the second.
    pub(crate) fn clash(&mut self, mark: impl Into<Mark>, flaw: Flaw, other: impl Into<Mark>, label: &str) {
        if self.has_room() {
            let mistake = self.finding(Severity::Mistake, mark.into(), flaw);
            self.mistakes
                .push(mistake.beside(self.place(other.into()), label));
        }
    }

    pub(crate) fn warn(&mut self, mark: impl Into<Mark>, flaw: Flaw) {
        self.note(Severity::Warning, mark, flaw);
    }

    /// Something that keeps a part of the settings from serving, and that time may have brought about.
    pub(crate) fn lapse(&mut self, mark: impl Into<Mark>, flaw: Flaw) {
        self.note(Severity::Lapse, mark, flaw);
    }

    fn note(&mut self, severity: Severity, mark: impl Into<Mark>, flaw: Flaw) {
        if self.warnings.len() >= MISTAKES_MAX {
            self.more_warnings = More::Cut;
            return;
        }
        let warning = self.finding(severity, mark.into(), flaw);
        self.warnings.push(warning);
    }

    /// Keeps a good value and reports a bad one.
    pub(crate) fn keep<T>(&mut self, mark: impl Into<Mark>, result: Result<T, Flaw>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(flaw) => {
                self.mistake(mark, flaw);
                None
            }
        }
    }

    pub(crate) fn vocabulary(&self) -> &'static Vocabulary {
        self.vocabulary
    }

    /// The name in the header of a table, if that is what a place of the settings file is.
    pub(crate) fn header(&self, span: &Range<usize>) -> Option<&str> {
        let header = self.sources.first()?.text().get(span.clone())?.trim();
        let name = header.strip_prefix('[')?.strip_suffix(']')?;
        let name = name.trim_start_matches('[').trim_end_matches(']').trim();
        name.split('.')
            .all(|key| self.vocabulary.is_key(key))
            .then_some(name)
    }

    /// How much was wrong so far.
    pub(crate) fn len(&self) -> usize {
        self.mistakes.len()
    }

    /// Whether another mistake will be kept; asking counts as having had one.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.mistakes.len() < MISTAKES_MAX {
            return true;
        }
        self.more = More::Cut;
        false
    }

    /// The report, if anything was wrong, and the warnings otherwise.
    pub(crate) fn finish(mut self) -> Result<Vec<Mistake>, Report> {
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
