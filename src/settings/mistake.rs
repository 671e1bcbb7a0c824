//! Mistakes in the settings, and the report that prints all of them with line and caret. A mistake keeps a copy of its line
//! with every secret already masked, so that it can be printed after the file is gone.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use crate::model::Flaw;
use crate::settings::mask;
use crate::settings::mask::{HiddenWords, Vocabulary};

/// Most mistakes of one report; a file with more has one cause that shows in the first few.
pub(super) const MISTAKES_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The settings cannot be used.
    Mistake,
    /// They can be used, but a part of them cannot serve: `check` refuses them, `serve` goes on with the rest.
    Lapse,
    /// They can be used, but something in them is probably wrong.
    Warning,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Color,
}

/// What a text is, and therefore what of it may be shown.
#[derive(Debug, Clone, Copy)]
pub(super) enum TextKind {
    Settings(&'static Vocabulary),
    KeyList,
    NetworkList,
}

/// A text that mistakes point into.
#[derive(Debug)]
pub(super) struct Source {
    name: Arc<str>,
    text: Rc<String>,
    kind: TextKind,
    /// The text of settings as it may be shown, once it is needed.
    masked: OnceCell<String>,
    /// The byte each line begins at, once somebody asks.
    lines: OnceCell<Vec<usize>>,
}

impl Source {
    pub(super) fn new(name: &str, text: &str, kind: TextKind) -> Self {
        Self::shared(name, &Rc::new(text.to_owned()), kind)
    }

    /// The same of a text that somebody else reads, too. Texts are long and seldom wrong: settings are masked as a whole
    /// once something in them is shown, and of lists each line that is shown.
    pub(super) fn shared(name: &str, text: &Rc<String>, kind: TextKind) -> Self {
        Self {
            name: name.into(),
            text: Rc::clone(text),
            kind,
            masked: OnceCell::new(),
            lines: OnceCell::new(),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn masked(&self) -> &str {
        match self.kind {
            TextKind::Settings(words) => self.masked.get_or_init(|| mask::settings(&self.text, words)),
            TextKind::KeyList | TextKind::NetworkList => &self.text,
        }
    }

    /// The words of settings that no sentence may repeat.
    pub(super) fn hidden_words(&self) -> HiddenWords {
        HiddenWords::of(&self.text, self.masked())
    }

    fn lines(&self) -> &[usize] {
        self.lines.get_or_init(|| {
            let breaks = memchr::memchr_iter(b'\n', self.text.as_bytes());
            std::iter::once(0).chain(breaks.map(|at| at + 1)).collect()
        })
    }

    /// The line that contains a span, ready to be printed. A span over several lines is cut to the first.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let lines = self.lines();
        let index = lines
            .partition_point(|start| *start <= span.start)
            .saturating_sub(1);
        let start = lines.get(index).copied().unwrap_or(0);
        let rest = self.masked().get(start..).unwrap_or("");
        let line = rest.split('\n').next().unwrap_or("").trim_end_matches('\r');
        let from = floor(line, span.start - start);
        let to = ceil(line, span.end.max(span.start) - start).max(from);
        let column = line.get(..from).unwrap_or("").chars().count() + 1;
        let excerpt = match self.kind {
            TextKind::Settings(_) => line.to_owned(),
            TextKind::KeyList => mask::key_line(line),
            TextKind::NetworkList => mask::network_line(line),
        };
        let kept = excerpt.trim_end().len().max(to);
        let excerpt = excerpt.get(..kept).unwrap_or(&excerpt).to_owned();
        Place {
            file: self.name.clone(),
            spot: Some(Spot {
                line: index + 1,
                column,
                excerpt,
                span: from..to,
            }),
        }
    }
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

fn ceil(text: &str, at: usize) -> usize {
    (at.min(text.len())..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len())
}

/// A place in a file, or the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    file: Arc<str>,
    spot: Option<Spot>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Spot {
    line: usize,
    column: usize,
    /// The line, with nothing in it that must not be shown.
    excerpt: String,
    /// The bytes of the line that are meant.
    span: Range<usize>,
}

impl Place {
    /// A file that could not even be read.
    pub(super) fn file(name: &str) -> Self {
        Self {
            file: name.into(),
            spot: None,
        }
    }

    fn order(&self) -> (usize, usize) {
        self.spot.as_ref().map_or((0, 0), |spot| (spot.line, spot.column))
    }
}

/// A finding in the settings: something that cannot be used, or a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    severity: Severity,
    what: String,
    hint: Option<String>,
    place: Place,
    other: Option<(Place, String)>,
}

impl Mistake {
    pub(super) fn new(severity: Severity, flaw: Flaw, place: Place) -> Self {
        Self {
            severity,
            what: flaw.what,
            hint: flaw.hint,
            place,
            other: None,
        }
    }

    /// Adds a second place, and what it has to do with the first.
    pub(super) fn beside(mut self, place: Place, label: impl Into<String>) -> Self {
        self.other = Some((place, label.into()));
        self
    }

    pub fn severity(&self) -> Severity {
        self.severity
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    pub fn file(&self) -> &str {
        &self.place.file
    }

    /// Line in the file, from 1; nothing if the file could not be read.
    pub fn line(&self) -> Option<usize> {
        self.place.spot.as_ref().map(|spot| spot.line)
    }

    pub fn column(&self) -> Option<usize> {
        self.place.spot.as_ref().map(|spot| spot.column)
    }

    pub fn render(&self, style: Style) -> String {
        let level = match self.severity {
            Severity::Mistake | Severity::Lapse => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(self.what.as_str()));
        match &self.place.spot {
            Some(spot) => {
                let kind = AnnotationKind::Primary;
                group = group.element(snippet(&self.place.file, spot, kind.span(spot.span.clone())));
            }
            None => group = group.element(annotate_snippets::Origin::path(&*self.place.file)),
        }
        if let Some((
            Place {
                file,
                spot: Some(spot),
            },
            label,
        )) = &self.other
        {
            let annotation = AnnotationKind::Context
                .span(spot.span.clone())
                .label(label.as_str());
            group = group.element(snippet(file, spot, annotation));
        }
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Color => Renderer::styled(),
        };
        renderer.render(&[group])
    }
}

fn snippet<'a>(file: &'a str, spot: &'a Spot, annotation: Annotation<'a>) -> Snippet<'a, Annotation<'a>> {
    Snippet::source(spot.excerpt.as_str())
        .line_start(spot.line)
        .path(file)
        .annotation(annotation)
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

/// All mistakes of a settings file, and its warnings: at least one of them is a mistake.
#[derive(Debug, Clone)]
pub struct Report {
    mistakes: Vec<Mistake>,
    more: More,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    Complete,
    Cut,
}

impl Report {
    /// Puts mistakes in order: the settings file first, each file from top to bottom.
    pub(super) fn new(main: &str, mut mistakes: Vec<Mistake>, more: More) -> Self {
        sort(main, &mut mistakes);
        Self { mistakes, more }
    }

    /// Takes settings that can be used by their word: what a gateway would start with in part is a mistake as well.
    pub fn strict(warnings: Vec<Mistake>) -> Result<Vec<Mistake>, Self> {
        if warnings
            .iter()
            .all(|warning| warning.severity == Severity::Warning)
        {
            return Ok(warnings);
        }
        Err(Self {
            mistakes: warnings,
            more: More::Complete,
        })
    }

    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    fn count(&self, severity: Severity) -> usize {
        self.mistakes
            .iter()
            .filter(|mistake| mistake.severity == severity)
            .count()
    }

    pub fn render(&self, style: Style) -> String {
        let mut text = String::new();
        for mistake in &self.mistakes {
            text.push_str(&mistake.render(style));
            text.push_str("\n\n");
        }
        let counted = |number: usize, thing: &str| match number {
            1 => format!("1 {thing}"),
            _ => format!("{number} {thing}s"),
        };
        let mistakes = self.count(Severity::Mistake) + self.count(Severity::Lapse);
        let mistakes = counted(mistakes, "mistake");
        let summary = match self.count(Severity::Warning) {
            0 => mistakes,
            warnings => format!("{mistakes} and {}", counted(warnings, "warning")),
        };
        text.push_str(&summary);
        if self.more == More::Cut {
            text.push_str("; the rest is not shown");
        }
        text.push('\n');
        text
    }
}

pub(super) fn sort(main: &str, mistakes: &mut [Mistake]) {
    mistakes.sort_by_cached_key(|mistake| {
        let place = &mistake.place;
        (*place.file != *main, place.file.clone(), place.order())
    });
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::{Flaw, Mistake, More, Report, Severity, Source, Style, TextKind};
    use crate::settings::schema::vocabulary;

    fn mistake(source: &Source, part: &str, what: &str) -> Mistake {
        let start = source.text.find(part).unwrap();
        Mistake::new(
            Severity::Mistake,
            Flaw::new(what),
            source.place(start..start + part.len()),
        )
    }

    #[test]
    fn a_mistake_shows_line_caret_and_both_places() {
        let source = Source::new(
            "flowgate.toml",
            "per = 1\nname = \"ü\" # x\nrate = 2\n",
            TextKind::Settings(vocabulary()),
        );
        let mut mistake =
            mistake(&source, "\"ü\"", "this is wrong").beside(source.place(0..3), "declared here");
        mistake.hint = Some("do it right".to_owned());
        assert_eq!(
            mistake.render(Style::Plain),
            "\
error: this is wrong
 --> flowgate.toml:2:8
  |
2 | name = \"ü\"
  |        ^^^
  |
 ::: flowgate.toml:1:1
  |
1 | per = 1
  | --- declared here
  |
  = help: do it right"
        );
        assert!(mistake.render(Style::Color).contains("\u{1b}["));
    }

    #[test]
    fn a_report_goes_from_top_to_bottom_and_counts() {
        let main = Source::new("z.toml", "a = 1\nb = 2\n", TextKind::Settings(vocabulary()));
        let list = Source::new("a.txt", "erp x\n", TextKind::KeyList);
        let mistakes = vec![
            mistake(&list, "x", "third"),
            mistake(&main, "b", "second"),
            mistake(&main, "a", "first"),
        ];
        let text = Report::new("z.toml", mistakes, More::Complete).render(Style::Plain);
        let order: Vec<_> = ["first", "second", "third"]
            .iter()
            .map(|word| text.find(word).unwrap())
            .collect();
        assert!(order.is_sorted(), "{text}");
        assert!(text.ends_with("\n\n3 mistakes\n"), "{text}");
    }

    #[test]
    fn a_place_beyond_the_text_is_shown_at_its_end() {
        let source = Source::new("x", "ü", TextKind::Settings(vocabulary()));
        for span in [0..1, 1..2, 5..9, 0..0] {
            let _ = Mistake::new(Severity::Warning, Flaw::new("w"), source.place(span)).render(Style::Plain);
        }
    }
}
