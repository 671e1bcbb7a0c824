//! Header blocks of HTTP/2, as they are read before h2 gets them. Whatever comes ends, and what goes on is the same however
//! the bytes arrive.

use flowgate::server::blocks::Blocks;

use super::arrivals;

/// Bytes of the longest head; short, so that longer ones are met.
const HEAD_BYTES_MAX: usize = 2000;
/// The preface of a connection, whose bytes are of no concern here.
const PREFACE_BYTES: usize = 24;

/// What goes on of these pieces.
fn through<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut blocks = Blocks::new(HEAD_BYTES_MAX);
    assert_eq!(blocks.look(&mut [0; PREFACE_BYTES]), PREFACE_BYTES);
    let mut out = Vec::new();
    for mut rest in pieces {
        while !rest.is_empty() {
            let wanted = blocks.wanted();
            if wanted > 0 {
                let (more, after) = rest.split_at(wanted.min(rest.len()));
                blocks.fill(more);
                rest = after;
            } else {
                let mut bytes = rest.to_vec();
                let passed = blocks.look(&mut bytes);
                out.extend_from_slice(&bytes[..passed]);
                rest = &[];
            }
            loop {
                let ready = blocks.ready(5);
                if ready.is_empty() {
                    break;
                }
                out.extend_from_slice(ready);
            }
        }
    }
    out
}

/// Frames go on the same however they arrive, never more of them, and what went on once goes on as it is.
pub(crate) fn blocks(data: &[u8]) {
    let whole = through([data]);
    for pieces in arrivals(data) {
        assert_eq!(through(pieces), whole, "pieces change what goes on");
    }
    assert!(
        whole.len() <= data.len(),
        "{} bytes became {}",
        data.len(),
        whole.len()
    );
    assert!(
        whole.starts_with(&through([whole.as_slice()])),
        "what went on is changed again"
    );
}
