//! How many requests of an HTTP/2 connection may be under way before one of them has shown a credential. A request that
//! is refused costs memory until its answer has been read, and h2 cannot allow more streams or larger windows later. So
//! bytes behind the head of one request too many stay in the socket until another has ended. The first
//! credential that is accepted opens the gate for good, so that known callers wait for nothing but their own identification.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use crate::gateway::Connection;
use crate::model::locked;
use crate::server::http2::blocks::{
    CONTINUATION, END_HEADERS, HEADER_BYTES, HEADERS, Longest, PREFACE_BYTES, length,
};

/// Requests that may be under way before that. They end at once for a caller that reads its answers.
const REQUESTS_MAX: usize = 4;
/// Refused bodies that may still be arriving before that.
const BODIES_MAX: usize = 6;

/// What is under way on a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnderWay {
    /// Requests whose answers have not left.
    pub(super) requests: usize,
    /// Bodies that are discarded.
    pub(super) bodies: usize,
}

impl UnderWay {
    /// Whether a frame with this header may pass beside it. What makes a head long waits until nothing else is under way,
    /// because it takes as much memory as all of that.
    fn admits(self, kind: u8) -> bool {
        match kind {
            HEADERS => self.requests < REQUESTS_MAX && self.bodies < BODIES_MAX,
            CONTINUATION => self.requests == 0 && self.bodies == 0,
            _ => true,
        }
    }
}

/// How many heads have begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Heads {
    #[default]
    None,
    One,
    More,
}

impl Heads {
    fn next(self) -> Self {
        match self {
            Self::None => Self::One,
            Self::One | Self::More => Self::More,
        }
    }
}

/// What the connection, its requests and its guard know of it.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) via: Arc<Connection>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// With heads that have passed since it was counted.
    under_way: UnderWay,
    heads: Heads,
    /// The kind of frame that is held back, and who waits for it.
    holds: Option<(u8, Waker)>,
}

impl Gate {
    pub(super) fn new(via: &Arc<Connection>) -> Arc<Self> {
        Arc::new(Self {
            via: via.clone(),
            state: Mutex::default(),
        })
    }

    /// Notes what is under way. It is exact between two polls of the connection: hyper has made requests of all heads
    /// that passed, save those that h2 has reset.
    pub(super) fn settle(&self, under_way: UnderWay) {
        locked(&self.state).under_way = under_way;
    }

    /// Whether something is held back that may pass by now.
    pub(super) fn is_late(&self, under_way: UnderWay) -> bool {
        let state = locked(&self.state);
        let holds = state.holds.as_ref();
        holds.is_some_and(|(kind, _)| self.via.is_known() || under_way.admits(*kind))
    }

    /// Notes that a request has ended, or that its credential was accepted.
    pub(super) fn changed(&self) {
        if let Some((_, waker)) = &locked(&self.state).holds {
            waker.wake_by_ref();
        }
    }

    /// Whether a frame with this header may pass now.
    fn admits(&self, kind: u8, flags: u8, cx: &Context<'_>) -> bool {
        if !matches!(kind, HEADERS | CONTINUATION) {
            return true;
        }
        let mut state = locked(&self.state);
        if !state.under_way.admits(kind) && !self.via.is_known() {
            state.holds = Some((kind, cx.waker().clone()));
            return false;
        }
        state.holds = None;
        state.under_way.requests += usize::from(flags & END_HEADERS != 0);
        if kind == HEADERS {
            state.heads = state.heads.next();
        }
        true
    }
}

/// Follows the frames of one peer, and holds back those that may not pass yet.
#[derive(Debug)]
pub(super) struct Door {
    gate: Arc<Gate>,
    /// Bytes of the preface or of a payload that are still to come.
    skip: usize,
    header: [u8; HEADER_BYTES],
    have: usize,
    held: Vec<u8>,
}

impl Door {
    pub(super) fn new(gate: &Arc<Gate>) -> Self {
        Self {
            gate: gate.clone(),
            skip: PREFACE_BYTES,
            header: [0; HEADER_BYTES],
            have: 0,
            held: Vec::new(),
        }
    }

    /// The longest block that is joined. An unknown caller may have a head that is refused for its size as its first one
    /// only: later it would take its memory beside that of other requests.
    pub(super) fn longest(&self) -> Longest {
        if self.gate.via.is_known() {
            return Longest::Refused;
        }
        match locked(&self.gate.state).heads {
            Heads::None | Heads::One => Longest::Most,
            Heads::More => Longest::Head,
        }
    }

    /// Whether bytes wait that have been read already. No more are read before they have passed.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Looks at bytes that were read behind the first `before`, and takes away those that may not pass.
    pub(super) fn admit(&mut self, out: &mut ReadBuf<'_>, before: usize, cx: &Context<'_>) -> Poll<()> {
        if self.gate.via.is_known() {
            return Poll::Ready(());
        }
        let bytes = out.filled().get(before..).unwrap_or_default();
        let passed = self.pass(bytes, cx);
        self.held = bytes.get(passed..).unwrap_or_default().to_vec();
        let is_end = bytes.is_empty();
        out.set_filled(before + passed);
        if passed > 0 || is_end {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Puts what may pass of the bytes that wait.
    pub(super) fn release(&mut self, out: &mut ReadBuf<'_>, cx: &Context<'_>) -> Poll<()> {
        let held = std::mem::take(&mut self.held);
        let most = held.len().min(out.remaining());
        let bytes = held.get(..most).unwrap_or_default();
        let passed = match self.gate.via.is_known() {
            true => {
                locked(&self.gate.state).holds = None;
                bytes.len()
            }
            false => self.pass(bytes, cx),
        };
        out.put_slice(bytes.get(..passed).unwrap_or_default());
        self.held = held.get(passed..).unwrap_or_default().to_vec();
        if passed > 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// How many of these bytes may pass.
    fn pass(&mut self, bytes: &[u8], cx: &Context<'_>) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() - at);
                self.skip -= skipped;
                at += skipped;
                continue;
            }
            // The last byte of a header decides: without it nobody can do anything with the others.
            if self.have + 1 == HEADER_BYTES {
                let [_, _, _, kind, flags, ..] = self.header;
                if !self.gate.admits(kind, flags, cx) {
                    return at;
                }
                self.have = 0;
                self.skip = length(&self.header);
            } else {
                if let Some(place) = self.header.get_mut(self.have) {
                    *place = *byte;
                }
                self.have += 1;
            }
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use tokio::io::ReadBuf;

    use super::{
        BODIES_MAX, CONTINUATION, Door, END_HEADERS, Gate, HEADERS, PREFACE_BYTES, REQUESTS_MAX, UnderWay,
    };
    use crate::gateway::Connection;
    use crate::settings::Peers;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8) -> Vec<u8> {
        vec![0, 0, 3, kind, flags, 0, 0, 0, 1, b'a', b'b', b'c']
    }

    fn door() -> Door {
        let via = Connection::new(([127, 0, 0, 1], 443).into(), 0, "h2", None, Peers::Callers);
        let mut door = Door::new(&Gate::new(&via));
        assert_eq!(admit(&mut door, &[0; PREFACE_BYTES]).len(), PREFACE_BYTES);
        door
    }

    /// What passes of these bytes, read piece by piece.
    fn admit(door: &mut Door, bytes: &[u8]) -> Vec<u8> {
        let mut memory = vec![0; bytes.len()];
        let mut out = ReadBuf::new(&mut memory);
        out.put_slice(bytes);
        let _ = door.admit(&mut out, 0, &Context::from_waker(Waker::noop()));
        out.filled().to_vec()
    }

    /// What passes later.
    fn release(door: &mut Door) -> Vec<u8> {
        let mut passed = Vec::new();
        while door.is_holding() {
            let mut memory = [0; 5];
            let mut out = ReadBuf::new(&mut memory);
            let released = door.release(&mut out, &Context::from_waker(Waker::noop()));
            if released.is_pending() {
                break;
            }
            passed.extend_from_slice(out.filled());
        }
        passed
    }

    fn under_way(requests: usize, bodies: usize) -> UnderWay {
        UnderWay { requests, bodies }
    }

    #[test]
    fn a_head_too_many_waits_with_all_behind_it_until_a_request_has_ended() {
        let mut door = door();
        let head = frame(HEADERS, END_HEADERS);
        let ping = frame(PING, 0);
        let bytes = [&head.repeat(REQUESTS_MAX + 2)[..], &ping].concat();
        let mut passed = admit(&mut door, &bytes);
        // Without the last byte of its header a frame is none yet.
        assert_eq!(passed.len(), head.len() * REQUESTS_MAX + 8);
        assert!(!door.gate.is_late(under_way(REQUESTS_MAX, 0)));
        assert_eq!(release(&mut door), b"");
        assert!(door.gate.is_late(under_way(REQUESTS_MAX - 1, 0)));
        door.gate.settle(under_way(REQUESTS_MAX - 1, 0));
        passed.extend(release(&mut door));
        assert_eq!(passed.len(), head.len() * (REQUESTS_MAX + 1) + 8);
        door.gate.settle(under_way(0, 0));
        passed.extend(release(&mut door));
        assert_eq!(passed, bytes);
    }

    #[test]
    fn a_head_waits_while_many_refused_bodies_arrive() {
        let mut door = door();
        door.gate.settle(under_way(0, BODIES_MAX));
        let head = frame(HEADERS, END_HEADERS);
        assert_eq!(admit(&mut door, &head).len(), 8);
        door.gate.settle(under_way(0, BODIES_MAX - 1));
        assert_eq!(release(&mut door).len(), head.len() - 8);
    }

    #[test]
    fn a_long_head_waits_for_all_others() {
        let mut door = door();
        let begun = frame(HEADERS, 0);
        let bytes = [begun.clone(), frame(CONTINUATION, END_HEADERS)].concat();
        for (requests, bodies) in [(1, 0), (0, 1)] {
            door.gate.settle(under_way(requests, bodies));
            let mut passed = admit(&mut door, &bytes);
            assert_eq!(passed.len(), begun.len() + 8);
            door.gate.settle(under_way(0, 0));
            passed.extend(release(&mut door));
            assert_eq!(passed, bytes);
        }
    }

    #[test]
    fn pieces_do_not_change_what_passes() {
        let head = frame(HEADERS, END_HEADERS);
        let bytes = [frame(PING, 0), head.repeat(REQUESTS_MAX), frame(PING, 0)].concat();
        for size in 1..bytes.len() {
            let mut door = door();
            let passed: Vec<u8> = bytes
                .chunks(size)
                .flat_map(|piece| admit(&mut door, piece))
                .collect();
            assert_eq!(passed, bytes, "in pieces of {size}");
            assert_eq!(admit(&mut door, &head).len(), 8);
        }
    }
}
