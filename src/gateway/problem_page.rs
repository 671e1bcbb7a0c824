//! The page to which the type of a problem leads: its row of the table, for people. It needs no credential, because the table is
//! public, and has nothing that belongs to this gateway; a limit for each address keeps it from costing anything.

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, header};

use crate::gateway::host;
use crate::gateway::journal::Journal;
use crate::gateway::snapshot::Snapshot;
use crate::policy::Origin;
use crate::policy::host::fold;
use crate::problem::{Again, Kind, Problem, Run};

/// Nothing is loaded, nothing runs, and no page of others frames it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// A day; rows change with a new version only.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=86400");

/// The page that a request asks for; none for every other request, one for a code that does not exist among them.
pub(super) fn answer(
    snapshot: &Snapshot,
    head: &Parts,
    origin: Origin,
    journal: &mut Journal,
) -> Option<Result<Response<Bytes>, Problem>> {
    let pages = snapshot.problem_pages.as_ref()?;
    let code = head.uri.path().strip_prefix(pages.path())?;
    let kind = Kind::ALL.iter().find(|kind| kind.row().code == code)?;
    let is_read = [Method::GET, Method::HEAD].contains(&head.method);
    if !is_read || snapshot.heads.check(head).is_err() || *fold(&host::of(head).ok()?) != **pages.host() {
        return None;
    }
    journal.page(kind.row().code);
    Some(snapshot.quotas.take_page(origin).map(|()| page(*kind)))
}

fn page(kind: Kind) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(document(kind)));
    let headers = answer.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, CACHED),
    ] {
        headers.insert(name, value);
    }
    answer
}

fn document(kind: Kind) -> String {
    let row = kind.row();
    let again = match (row.again, kind.run()) {
        (Again::Later, _) => "Yes, later: no run of the flow has started.",
        (Again::No, Run::No) => "No: it would fail in the same way.",
        (Again::No, Run::Yes | Run::Unknown) => "No: it could start the flow a second time.",
    };
    let run = match kind.run() {
        Run::No => "No.",
        Run::Yes => "Yes.",
        Run::Unknown => "Nobody knows: treat it as started.",
    };
    let status = row.status.to_string();
    let facts = [
        ("Status", status.as_str()),
        ("Reason", row.reason.as_str()),
        ("Who must act", row.fixed_by.must_fix()),
        ("What to do", row.fix),
        ("Send the same request again?", again),
        ("Was a run of the flow started?", run),
    ];
    let facts = facts.map(|(name, value)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(value)));
    let (code, title) = (escaped(row.code), escaped(row.title));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{code}</title></head>\n<body>\n<h1>{code}</h1>\n<p>{title}</p>\n<dl>\n{}</dl>\n\
         <p>The answer with this problem knows more: its <code>detail</code>, and <code>retryable</code> and \
         <code>run_started</code> where they differ from this page. When you ask about it, name its <code>x-request-id</code>.</p>\n\
         </body>\n</html>\n",
        facts.concat()
    )
}

/// A text between the tags of a page.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::{document, escaped};
    use crate::problem::Kind;

    #[test]
    fn every_page_has_its_row_and_no_markup_from_it() {
        for kind in Kind::ALL {
            let (row, page) = (kind.row(), document(*kind));
            for text in [
                row.code,
                row.title,
                row.fix,
                row.fixed_by.must_fix(),
                row.status.as_str(),
            ] {
                assert!(page.contains(&escaped(text)), "{}: {text}", row.code);
            }
            assert!(!page.contains("<script") && !page.contains("style"), "{page}");
        }
        assert_eq!(
            escaped("<a href=\"x\">&'</a>"),
            "&lt;a href=&quot;x&quot;&gt;&amp;&#39;&lt;/a&gt;"
        );
    }
}
