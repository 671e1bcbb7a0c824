//! The lines of the log on their way out. One thread writes them, many at a time, so that nobody else waits for a slow
//! pipe. A line that finds no room here is dropped and counted, and so is one that the system does not take; how many
//! were lost is a line of its own once there is room again. Lines that anyone can cause are dropped before those of
//! requests.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, mem, thread};

use serde::Serialize;
use tokio::time::Instant;
use tracing::Level;

use crate::gateway::journal::{Form, Sink};
use crate::model::clock;

/// Bytes that wait for the writer at most.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// With so many bytes waiting only lines of requests and of the gateway itself are taken, so that a flood of others
/// costs none of them.
const MINOR_BYTES_MAX: usize = WAITING_BYTES_MAX / 8;
/// Time between two complaints on standard error about a log that cannot be written.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(60);
/// A busy gateway writes its lines together once in this time: waking the writer for each costs more than the line.
const GATHER_TIME: Duration = Duration::from_millis(10);
/// Room that is kept from one writing to the next. Bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// How long the end of the process waits for a writer whose pipe nobody reads.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Takes lines, from any thread and in the order in which they come. Clones share it.
#[derive(Clone)]
pub(super) struct Lines(Arc<Desk>);

/// Writes what still waits when dropped.
pub(super) struct Farewell(Arc<Desk>);

struct Desk {
    queue: Mutex<Queue>,
    /// For the writer: there is something to do.
    work: Condvar,
    /// For whoever waits for the end.
    over: Condvar,
    lost: AtomicU64,
}

struct Queue {
    waiting: Vec<u8>,
    writer: Writer,
    closed: bool,
}

#[derive(PartialEq, Eq)]
enum Writer {
    /// Waits to be woken.
    Idle,
    /// Writes or gathers; it looks again by itself.
    Busy,
    Gone,
}

impl Lines {
    /// Starts the thread that writes to `out`, and to `complaints` when that is not possible.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        complaints: impl Write + Send + 'static,
        form: Form,
    ) -> io::Result<(Self, Farewell)> {
        let desk = Arc::new(Desk {
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                writer: Writer::Busy,
                closed: false,
            }),
            work: Condvar::new(),
            over: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let theirs = desk.clone();
        let outlet = Outlet {
            out,
            torn: false,
            failure: None,
        };
        let losses = Losses {
            complaints,
            form,
            reported: 0,
            failing: false,
            complained: None,
        };
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || theirs.run(outlet, losses))?;
        Ok((Self(desk.clone()), Farewell(desk)))
    }

    fn take(&self, line: &[u8], bytes_max: usize) {
        let mut queue = self.0.queue();
        if queue.closed || queue.waiting.len() + line.len() > bytes_max {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.waiting.extend_from_slice(line);
        if queue.writer == Writer::Idle {
            queue.writer = Writer::Busy;
            drop(queue);
            self.0.work.notify_one();
        }
    }
}

impl Sink for Lines {
    fn line(&self, line: &[u8]) {
        self.take(line, WAITING_BYTES_MAX);
    }

    fn minor(&self, line: &[u8]) {
        self.take(line, MINOR_BYTES_MAX);
    }

    fn dropped(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

/// For the lines of `tracing`, which writes each at once.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        self.0.work.notify_one();
        // Whether it came to its end or the time was over, the process ends now.
        let _ = self
            .0
            .over
            .wait_timeout_while(queue, FAREWELL_TIME, |queue| queue.writer != Writer::Gone);
    }
}

impl Desk {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut outlet: Outlet<impl Write>, mut losses: Losses<impl Write>) {
        let mut batch = Vec::new();
        while self.take(&mut batch) {
            self.lost.fetch_add(outlet.put(&batch), Ordering::Relaxed);
            losses.report(self.lost.load(Ordering::Relaxed), &mut outlet);
            batch.clear();
            batch.shrink_to(KEPT_BYTES_MAX);
            let queue = self.queue();
            // Only the end cuts this short.
            let _ = self
                .work
                .wait_timeout_while(queue, GATHER_TIME, |queue| !queue.closed);
        }
        self.queue().writer = Writer::Gone;
        self.over.notify_one();
    }

    /// Waits for lines and takes all of them; false when there will be no more.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut queue = self.queue();
        while queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            queue.writer = Writer::Idle;
            queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writer = Writer::Busy;
        mem::swap(&mut queue.waiting, batch);
        true
    }
}

/// Where lines end, whatever becomes of them there. Those that the system does not take, because the disk is full, are
/// counted and given up: requests go on, and so does the log once there is room again.
struct Outlet<W> {
    out: W,
    /// Whether the last line was written in part.
    torn: bool,
    /// Why the system did not take all of it last time, if so.
    failure: Option<io::Error>,
}

impl<W: Write> Outlet<W> {
    /// Writes whole lines and tells how many of them were lost.
    fn put(&mut self, lines: &[u8]) -> u64 {
        self.failure = None;
        if self.torn && self.write(b"\n") == 0 {
            return count(lines);
        }
        self.torn = false;
        let written = lines.get(..self.write(lines)).unwrap_or(lines);
        self.torn = written.last().is_some_and(|last| *last != b'\n');
        count(lines) - count(written)
    }

    /// Writes as much as the system takes.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match self.out.write(rest) {
                Ok(0) => {
                    self.failure = Some(io::ErrorKind::WriteZero.into());
                    break;
                }
                Ok(taken) => written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        written
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

/// Makes losses known: on standard error while the log cannot be written, and in a line of the log afterwards.
struct Losses<W> {
    complaints: W,
    form: Form,
    /// Lost lines that a line has counted.
    reported: u64,
    /// Whether the log could not be written since the last notice.
    failing: bool,
    /// When that was reported on standard error.
    complained: Option<Instant>,
}

impl<W: Write> Losses<W> {
    /// Looks at what became of the last lines, of which `lost` in all are lost.
    fn report(&mut self, lost: u64, outlet: &mut Outlet<impl Write>) {
        if let Some(failure) = &outlet.failure {
            return self.complain(failure);
        }
        let count = lost - self.reported;
        if count == 0 {
            return;
        }
        let why = match mem::take(&mut self.failing) {
            true => "it could not be written",
            false => "what reads it was slower than its lines",
        };
        let message = format!("{count} lines of the log were lost before this one, because {why}");
        let mut notice = Notice::new(Level::WARN, module_path!(), &message);
        notice.lost = Some(count);
        if outlet.put(&notice.line(self.form)) == 0 {
            self.reported = lost;
        }
    }

    /// Once in an outage, and not for each of many short ones.
    fn complain(&mut self, failure: &io::Error) {
        if mem::replace(&mut self.failing, true) {
            return;
        }
        let now = Instant::now();
        if self.complained.is_some_and(|at| now < at + COMPLAINT_PERIOD) {
            return;
        }
        self.complained = Some(now);
        let text = format!(
            "flowgate: the log cannot be written: {failure}. Requests are served on and their lines are lost, which \
             flowgate_log_lines_dropped counts; make room for standard output. Then the log says how many were lost.\n"
        );
        // There is no other place left to complain.
        let _ = self.complaints.write_all(text.as_bytes());
    }
}

/// A line of the gateway about its log or of a library, in the form of those of `tracing`.
#[derive(Serialize)]
pub(super) struct Notice<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    /// Lines of this place that were left out since its last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) suppressed: Option<u64>,
    /// Lines of the log that are lost since the last notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    target: &'a str,
}

impl<'a> Notice<'a> {
    /// A line, now. Message and target are somebody else's only if they are escaped.
    pub(super) fn new(level: Level, target: &'a str, message: &'a str) -> Self {
        Self {
            timestamp: clock::stamp(),
            level: level.as_str(),
            message,
            suppressed: None,
            lost: None,
            target,
        }
    }

    /// The bytes of the line.
    pub(super) fn line(&self, form: Form) -> Vec<u8> {
        if form == Form::Text {
            let suppressed = self.suppressed.map(|count| format!(" suppressed={count}"));
            let suppressed = suppressed.unwrap_or_default();
            let (time, level) = (&self.timestamp, self.level);
            return format!(
                "{time} {level:>5} {}: {}{suppressed}\n",
                self.target, self.message
            )
            .into_bytes();
        }
        // These plain fields cannot fail to serialize.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::io::Write;
    use std::sync::{Arc, Mutex, mpsc};

    use super::{Lines, Losses, MINOR_BYTES_MAX, Outlet, WAITING_BYTES_MAX};
    use crate::gateway::journal::{Form, Sink};

    /// Takes so many bytes and no more.
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes a piece each time it is told to, and keeps all of them.
    struct Gate {
        open: mpsc::Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.open.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let mut outlet = Outlet {
            out: Disk {
                room: 7,
                written: Vec::new(),
            },
            torn: false,
            failure: None,
        };
        assert_eq!(outlet.put(b"one\ntwo two\nthree\n"), 2);
        assert_eq!(outlet.put(b"lost\nas well\n"), 2);
        outlet.out.room = 100;
        assert_eq!(outlet.put(b"four\n"), 0);
        assert_eq!(outlet.put(b"five\nsix\n"), 0);
        assert_eq!(outlet.out.written, b"one\ntwo\nfour\nfive\nsix\n");
    }

    #[test]
    fn what_was_handed_over_is_written_in_its_order_before_the_end() {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (opener, open) = mpsc::channel();
        let gate = Gate {
            open,
            taken: taken.clone(),
        };
        let (mut lines, farewell) = Lines::start(gate, io::sink(), Form::Json).unwrap();
        let mut all = Vec::new();
        for number in 0..1000 {
            let line = format!("line {number}\n");
            all.extend_from_slice(line.as_bytes());
            match number % 2 {
                0 => lines.line(line.as_bytes()),
                _ => lines.write_all(line.as_bytes()).unwrap(),
            }
            opener.send(()).unwrap();
        }
        drop(farewell);
        assert_eq!(
            String::from_utf8(taken.lock().unwrap().clone()).unwrap(),
            String::from_utf8(all).unwrap()
        );
        assert_eq!(lines.dropped(), 0);
        lines.line(b"too late\n");
        assert_eq!(lines.dropped(), 1);
    }

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_but_neither_time_nor_memory() {
        let (opener, open) = mpsc::channel();
        let gate = Gate {
            open,
            taken: Arc::default(),
        };
        let (lines, farewell) = Lines::start(gate, io::sink(), Form::Json).unwrap();
        let line = [b"x".repeat(64 * 1024 - 1), b"\n".to_vec()].concat();
        let room = WAITING_BYTES_MAX / line.len();
        for _ in 0..2 * room + 2 {
            lines.line(&line);
        }
        // What the writer took before the pipe got stuck has left the queue.
        let dropped = usize::try_from(lines.dropped()).unwrap();
        assert!((2..=room + 2).contains(&dropped), "{dropped}");
        drop(opener);
        drop(farewell);
    }

    #[test]
    fn lines_of_requests_are_taken_when_a_flood_of_others_is_not() {
        let (opener, open) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let gate = Gate {
            open,
            taken: taken.clone(),
        };
        let (lines, farewell) = Lines::start(gate, io::sink(), Form::Json).unwrap();
        let flood = [b"x".repeat(64 * 1024 - 1), b"\n".to_vec()].concat();
        let flooded = 3 * MINOR_BYTES_MAX / flood.len();
        for _ in 0..flooded {
            lines.minor(&flood);
        }
        let dropped = lines.dropped();
        assert!(dropped > 0);
        for _ in 0..100 {
            lines.line(b"a request\n");
        }
        assert_eq!(lines.dropped(), dropped, "a line of a request was dropped");
        for _ in 0..10 {
            opener.send(()).unwrap();
        }
        drop(farewell);
        let written = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert_eq!(written.matches("a request\n").count(), 100);
        let notices: Vec<&str> = written
            .lines()
            .filter(|line| line.contains("\"lost\":"))
            .collect();
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(
            notices[0].contains(&format!("\"lost\":{dropped},")),
            "{notices:?}"
        );
    }

    #[test]
    fn an_outage_is_reported_once_and_its_losses_when_it_is_over() {
        let mut outlet = Outlet {
            out: Disk {
                room: 0,
                written: Vec::new(),
            },
            torn: false,
            failure: None,
        };
        let mut losses = Losses {
            complaints: Vec::new(),
            form: Form::Json,
            reported: 0,
            failing: false,
            complained: None,
        };
        let mut lost = 0;
        for _ in 0..3 {
            lost += outlet.put(b"one\ntwo\n");
            losses.report(lost, &mut outlet);
        }
        outlet.out.room = 1000;
        for _ in 0..2 {
            lost += outlet.put(b"three\n");
            losses.report(lost, &mut outlet);
        }
        let complaints = String::from_utf8(losses.complaints.clone()).unwrap();
        assert_eq!(complaints.matches("cannot be written").count(), 1, "{complaints}");
        let written = String::from_utf8(outlet.out.written.clone()).unwrap();
        let [first, notice, second] = written.lines().collect::<Vec<_>>()[..] else {
            panic!("{written}");
        };
        assert_eq!((first, second), ("three", "three"));
        assert!(notice.contains("\"lost\":6,"), "{notice}");
    }
}
