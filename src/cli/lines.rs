//! The queue of log lines. One thread writes them, many at a time, so that a slow pipe delays nobody else. A
//! line that does not fit into the queue is dropped and counted, and so is one that the system does not
//! accept; the number of lost lines is logged once there is room again. Lines that anyone can cause are
//! dropped before those of requests.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, mem, thread};

use serde::Serialize;
use tokio::time::Instant;
use tracing::Level;

use crate::gateway::log::{Form, Sink};
use crate::model::clock;

/// Most bytes that may wait for the writer.
const WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Above this many waiting bytes only lines of requests and of the gateway itself are accepted, so that a
/// flood of others does not displace them.
const MINOR_BYTES_MAX: usize = WAITING_BYTES_MAX / 8;
/// Interval between two complaints on standard error about a log that cannot be written.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(60);
/// A busy gateway writes its lines in batches at this interval: waking the writer for each line costs more
/// than the line.
const GATHER_TIME: Duration = Duration::from_millis(10);
/// Capacity kept between two batches. Bytes.
const KEPT_BYTES_MAX: usize = 64 * 1024;
/// How long shutdown waits for a writer whose pipe nobody reads.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Accepts lines from any thread and keeps their order. Clones share one queue.
#[derive(Clone)]
pub(super) struct Lines(Arc<SharedQueue>);

/// Writes the remaining lines when dropped.
pub(super) struct FlushOnDrop(Arc<SharedQueue>);

struct SharedQueue {
    queue: Mutex<Queue>,
    /// Signals the writer that there is work.
    work: Condvar,
    /// Signals the end of the writer.
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
    Idle,
    /// Writing or gathering; checks the queue again without being woken.
    Busy,
    Gone,
}

impl Lines {
    /// Starts the thread that writes to `out`, and to `complaints` if that fails.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        complaints: impl Write + Send + 'static,
        form: Form,
    ) -> io::Result<(Self, FlushOnDrop)> {
        let queue = Arc::new(SharedQueue {
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                writer: Writer::Busy,
                closed: false,
            }),
            work: Condvar::new(),
            over: Condvar::new(),
            lost: AtomicU64::new(0),
        });
        let theirs = queue.clone();
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
        Ok((Self(queue.clone()), FlushOnDrop(queue)))
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

/// For `tracing`, which writes one line per call.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        self.0.work.notify_one();
        // Finished or out of time, the process ends now.
        let _ = self
            .0
            .over
            .wait_timeout_while(queue, FLUSH_TIME, |queue| queue.writer != Writer::Gone);
    }
}

impl SharedQueue {
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
            // Only shutdown ends this wait early.
            let _ = self
                .work
                .wait_timeout_while(queue, GATHER_TIME, |queue| !queue.closed);
        }
        self.queue().writer = Writer::Gone;
        self.over.notify_one();
    }

    /// Waits for lines and takes all of them; false when no more will come.
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

/// The destination of lines, with its failures. Lines that the system does not accept, for example because
/// the disk is full, are counted and dropped: requests continue, and the log resumes when there is room
/// again.
struct Outlet<W> {
    out: W,
    /// Whether the last line was written only in part.
    torn: bool,
    /// Why the last write was incomplete.
    failure: Option<io::Error>,
}

impl<W: Write> Outlet<W> {
    /// Writes whole lines and returns how many of them were lost.
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

    /// Writes as much as the system accepts.
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

/// Reports losses: on standard error while the log cannot be written, and in a log line afterwards.
struct Losses<W> {
    complaints: W,
    form: Form,
    /// Lost lines that were already reported.
    reported: u64,
    /// Whether the log could not be written since the last notice.
    failing: bool,
    /// When the failure was last reported on standard error.
    complained: Option<Instant>,
}

impl<W: Write> Losses<W> {
    /// Examines the result of the last write; `lost` is the total number of lost lines.
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
            false => "its reader was too slow",
        };
        let message = format!("{count} lines of the log were lost before this one, because {why}");
        let mut notice = Notice::new(Level::WARN, module_path!(), &message);
        notice.lost = Some(count);
        if outlet.put(&notice.line(self.form)) == 0 {
            self.reported = lost;
        }
    }

    /// Once per outage, and not for each of many short ones.
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
            "flowgate: the log cannot be written: {failure}. Requests are still served and their lines are \
             lost, which flowgate_log_lines_dropped counts; make room for standard output. The log then \
             reports how many were lost.\n"
        );
        // If this fails too, there is nowhere left to report it.
        let _ = self.complaints.write_all(text.as_bytes());
    }
}

/// A line about the log itself or from a library, in the same form as those of `tracing`.
#[derive(Serialize)]
pub(super) struct Notice<'a> {
    timestamp: String,
    level: &'static str,
    message: &'a str,
    /// Lines of this code location that were suppressed since its last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) suppressed: Option<u64>,
    /// Log lines lost since the last notice.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    target: &'a str,
}

impl<'a> Notice<'a> {
    /// Creates a line with the current time. Message and target may contain foreign data only if it is
    /// escaped.
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
    use crate::gateway::log::{Form, Sink};

    /// Accepts this many bytes and no more.
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

    /// Accepts one piece for each permission, and keeps all of them.
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
        let (mut lines, flush) = Lines::start(gate, io::sink(), Form::Json).unwrap();
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
        drop(flush);
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
        let (lines, flush) = Lines::start(gate, io::sink(), Form::Json).unwrap();
        let line = [b"x".repeat(64 * 1024 - 1), b"\n".to_vec()].concat();
        let room = WAITING_BYTES_MAX / line.len();
        for _ in 0..2 * room + 2 {
            lines.line(&line);
        }
        // The lines that the writer took before the pipe blocked are no longer in the queue.
        let dropped = usize::try_from(lines.dropped()).unwrap();
        assert!((2..=room + 2).contains(&dropped), "{dropped}");
        drop(opener);
        drop(flush);
    }

    #[test]
    fn lines_of_requests_are_taken_when_a_flood_of_others_is_not() {
        let (opener, open) = mpsc::channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let gate = Gate {
            open,
            taken: taken.clone(),
        };
        let (lines, flush) = Lines::start(gate, io::sink(), Form::Json).unwrap();
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
        drop(flush);
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
