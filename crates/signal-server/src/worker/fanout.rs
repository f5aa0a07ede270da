//! From frames to sockets: each frame is encoded once, each dirty socket is written once per batch.
//!
//! It owns the frames of the batch under way, one after another in one buffer, and the list of
//! sockets that have some to send. A socket remembers which ranges of the buffer are for it; ranges
//! that touch are one, so that a socket owed several frames in a row gets them as one contiguous
//! write. No allocation and no reference count per member. A write that would block leaves the rest
//! to the connection's outbox and its task. It never waits and never calls back. Bounds: the buffer
//! is [`BUFFER_BYTES_MAX`], or [`SINGLES_BYTES_MAX`] (beyond, all is written at once), the lists hold each
//! socket once.
//!
//! A fan-out of thousands of writes takes tens of milliseconds, so the sockets of a message to many
//! wait in the backlog, of which each turn writes a slice; between turns the worker serves what else is
//! due. A message to few members is not held up by the backlog, and goes ahead even to a socket that
//! waits in it, together with all that the socket is owed, so order holds.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::Bytes;
use signal_core::v1::Variant;
use slab::Slab;

use super::encryption::{Form, Privacy};
use super::hub::Slot;
use super::stream::Stream;
use crate::counts::SendCounters;
use crate::ws::outbox::{Full, Outbox, SLICES_MAX};

/// Members up to which a message counts as small, and sockets that are written ahead of the backlog in
/// one go. At 2.8 µs a write this is under a millisecond.
const SMALL_MEMBERS_MAX: usize = 256;

/// Sockets of the backlog that are written in one go. What comes meanwhile waits for one or two of
/// these, and what a turn costs beside its writes is a hundredth of one.
const SLICE_SOCKETS: usize = 64;

/// Bytes of frames that may wait for the backlog.
const BUFFER_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of frames that are for one socket each. More than of those that many share, so that a thousand
/// sockets still get several messages in one write.
const SINGLES_BYTES_MAX: usize = 8 * BUFFER_BYTES_MAX;

/// What of the buffer's room is kept between batches.
const BUFFER_BYTES_KEPT: usize = 64 * 1024;

/// The same of the list of earlier runs.
const EARLIER_KEPT: usize = 16 * 1024;

/// No node.
const NONE: u32 = u32::MAX;

/// A run of frames in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    start: u32,
    end: u32,
}

/// A connection as far as sending is concerned: kept apart from the session, so that a fan-out
/// touches one cache line per member.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(super) stream: Stream,
    /// The last run owed; empty if none.
    last: Range,
    /// The first of the runs before `last`, in the fan-out's `earlier`, and the last one.
    first_earlier: u32,
    last_earlier: u32,
    /// Present while the socket would block, or while deliveries are held back.
    pub(super) outbox: Option<Box<Outbox>>,
    in_current: bool,
    in_backlog: bool,
    /// The outbox is held back by the session, not by the socket.
    pub(super) held: bool,
    /// How frames for it are written.
    pub(super) variant: Variant,
    /// Who besides the client may read what it gets.
    pub(super) privacy: Privacy,
    /// Bytes the socket took.
    pub(super) sent_bytes: u64,
    /// What ended it from the sending side, until the session's task takes notice.
    pub(super) failure: Option<SendFailure>,
}

/// Why nothing more can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendFailure {
    /// The outbox is full.
    SlowConsumer,
    /// The peer is gone.
    Disconnected,
}

impl SendFailure {
    /// In logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::SlowConsumer => "slow consumer",
            Self::Disconnected => "disconnected",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Earlier {
    range: Range,
    next: u32,
}

/// Sockets by slot.
pub(crate) type Sockets = Slab<Socket>;

/// The batch under way; see the module.
#[derive(Debug)]
pub(crate) struct Fanout {
    /// Frames that may still be appended to; what is in `frozen` comes before.
    buffer: Vec<u8>,
    /// Where `buffer` begins, in offsets that count from the last time all was written.
    buffer_start: u32,
    /// Parts of the buffer that outboxes share.
    frozen: Vec<(u32, Bytes)>,
    earlier: Vec<Earlier>,
    current: Vec<Slot>,
    backlog: VecDeque<Slot>,
    outbox_bytes_max: usize,
    /// Connections whose task has to take notice: blocked, or at an end.
    attention: Vec<Slot>,
    /// Members of the message under way that share no form with others.
    alone: Vec<Slot>,
    pub(super) counters: SendCounters,
}

// === impl Socket ===

impl Socket {
    /// A socket that is owed nothing.
    pub(crate) fn new(stream: Stream, variant: Variant) -> Self {
        Self {
            stream,
            last: Range::EMPTY,
            first_earlier: NONE,
            last_earlier: NONE,
            outbox: None,
            in_current: false,
            in_backlog: false,
            held: false,
            variant,
            privacy: Privacy::Clear,
            sent_bytes: 0,
            failure: None,
        }
    }

    /// Whether the socket did not take all it was given.
    pub(crate) fn is_blocked(&self) -> bool {
        (self.outbox.is_some() && !self.held) || self.stream.is_pending()
    }

    /// Bytes in the outbox.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.queued_bytes())
    }

    fn take_owed(&mut self) -> (Range, u32) {
        let owed = (self.last, self.first_earlier);
        self.last = Range::EMPTY;
        self.first_earlier = NONE;
        self.last_earlier = NONE;
        owed
    }

    fn owes_nothing(&self) -> bool {
        self.last.is_empty()
    }
}

// === impl Range ===

impl Range {
    const EMPTY: Self = Self { start: 0, end: 0 };

    fn is_empty(self) -> bool {
        self.start == self.end
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

// === impl Fanout ===

impl Fanout {
    /// An empty batch; `outbox_bytes_max` bounds what a connection may have queued.
    pub(crate) fn new(outbox_bytes_max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            buffer_start: 0,
            frozen: Vec::new(),
            earlier: Vec::new(),
            current: Vec::new(),
            backlog: VecDeque::new(),
            outbox_bytes_max,
            attention: Vec::new(),
            alone: Vec::new(),
            counters: SendCounters::default(),
        }
    }

    /// Appends a frame; `write` gets the buffer's end.
    pub(crate) fn encode(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range {
        let start = self.end();
        write(&mut self.buffer);
        Range { start, end: self.end() }
    }

    /// A shared handle on an encoded frame's bytes, for another worker.
    pub(crate) fn copy(&self, range: Range) -> Bytes {
        Bytes::copy_from_slice(self.bytes(range))
    }

    /// Queues a message for members, save those excluded and those that get a form of their own, which
    /// are listed for [`Self::take_alone`]. `encode` is asked once for each form that members share.
    /// `is_keyed` tells that the message may be sealed under a room's key, which all who get it so
    /// have. `excluded` is sorted.
    pub(crate) fn queue_all(
        &mut self,
        sockets: &mut Sockets,
        members: &[Slot],
        excluded: &[Slot],
        is_keyed: bool,
        mut encode: impl FnMut(Form, &mut Vec<u8>),
    ) {
        let small = members.len() <= SMALL_MEMBERS_MAX;
        let mut clear = [None; Variant::ALL.len()];
        let mut keyed = [None; Variant::ALL.len()];
        for &slot in members {
            if !excluded.is_empty() && excluded.binary_search(&slot).is_ok() {
                continue;
            }
            let Some(socket) = sockets.get(slot.0 as usize) else { continue };
            let variant = socket.variant;
            let (range, form) = match socket.privacy {
                Privacy::Clear => (&mut clear[variant as usize], Form::Clear(variant)),
                Privacy::Sealed if is_keyed && variant.is_v1() => {
                    (&mut keyed[variant as usize], Form::Keyed(variant))
                }
                Privacy::Sealed | Privacy::Transformed => {
                    self.alone.push(slot);
                    continue;
                }
            };
            let range = *range.get_or_insert_with(|| self.encode(|out| encode(form, out)));
            self.queue(sockets, slot, range, small);
        }
    }

    /// The members that get a form of their own; the list is given back when they have it.
    pub(crate) fn take_alone(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.alone)
    }

    /// Takes the list back, emptied, for the next message.
    pub(crate) fn give_back_alone(&mut self, mut alone: Vec<Slot>) {
        alone.clear();
        self.alone = alone;
    }

    /// Writes all there is if the buffer is full. For those who encode frame after frame for one socket
    /// each, so that what a message to many takes in memory is bounded.
    pub(crate) fn relieve(&mut self, sockets: &mut Sockets) {
        if self.end() as usize > SINGLES_BYTES_MAX {
            self.flush(sockets);
        }
    }

    /// Queues a frame for one socket. `small` tells that the message has few members, and may go
    /// ahead of the backlog.
    #[inline]
    pub(crate) fn queue(&mut self, sockets: &mut Sockets, slot: Slot, range: Range, small: bool) {
        let Some(socket) = sockets.get_mut(slot.0 as usize) else { return };
        if socket.failure.is_some() {
            return;
        }
        self.counters.frames += 1;
        if socket.outbox.is_some() {
            self.queue_blocked(socket, slot, range);
            return;
        }
        if socket.owes_nothing() {
            socket.last = range;
        } else if socket.last.end == range.start {
            socket.last.end = range.end;
        } else {
            let node = u32::try_from(self.earlier.len()).expect("bounded by the buffer");
            self.earlier.push(Earlier { range: socket.last, next: NONE });
            match socket.last_earlier {
                NONE => socket.first_earlier = node,
                last => self.earlier[last as usize].next = node,
            }
            socket.last_earlier = node;
            socket.last = range;
        }
        if socket.in_current {
            return;
        }
        if small {
            socket.in_current = true;
            self.current.push(slot);
        } else if !socket.in_backlog {
            // Not in front of what is small and comes later in this turn.
            socket.in_backlog = true;
            self.backlog.push_back(slot);
        }
    }

    /// Writes what is due: all that is small, unless it is more than a slice, then a slice of the backlog.
    pub(crate) fn flush(&mut self, sockets: &mut Sockets) {
        let all = self.end() as usize > BUFFER_BYTES_MAX;
        let mut current = std::mem::take(&mut self.current);
        let slice = if all { current.len() } else { current.len().min(SMALL_MEMBERS_MAX) };
        for &slot in &current[..slice] {
            self.write(sockets, slot, true);
        }
        for &slot in &current[slice..] {
            let Some(socket) = sockets.get_mut(slot.0 as usize) else { continue };
            socket.in_current = false;
            if !socket.in_backlog {
                socket.in_backlog = true;
                self.backlog.push_back(slot);
            }
        }
        current.clear();
        self.current = current;
        let slice = match all {
            true => usize::MAX,
            false => SLICE_SOCKETS.saturating_sub(slice).max(SLICE_SOCKETS / 4),
        };
        for _ in 0..slice {
            let Some(slot) = self.backlog.pop_front() else { break };
            self.write(sockets, slot, false);
        }
        if self.backlog.is_empty() {
            self.reset();
        }
    }

    /// Whether some is left for another turn.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The connections whose task has to look at its socket again.
    pub(crate) fn take_attention(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.attention)
    }

    /// Whether some connection's task has to look at its socket.
    pub(crate) fn has_attention(&self) -> bool {
        !self.attention.is_empty()
    }

    /// Begins holding back what is queued for a socket, in its outbox. A socket that is blocked
    /// already fails: its peer did not read the answers to what it sent.
    pub(crate) fn hold(&mut self, sockets: &mut Sockets, slot: Slot) {
        self.write_now(sockets, slot);
        let socket = &mut sockets[slot.0 as usize];
        if socket.failure.is_some() {
            return;
        }
        if socket.outbox.is_some() {
            self.fail(socket, slot, SendFailure::SlowConsumer);
            return;
        }
        socket.held = true;
        socket.outbox = Some(Box::new(Outbox::new(self.outbox_bytes_max)));
    }

    /// Ends holding back: `first` goes before what was held.
    pub(crate) fn release(&mut self, sockets: &mut Sockets, slot: Slot, first: Range) {
        let first = self.copy(first);
        let socket = &mut sockets[slot.0 as usize];
        socket.held = false;
        if let Some(outbox) = &mut socket.outbox {
            outbox.push_front(first);
            self.counters.frames += 1;
            if self.write_outbox(socket).is_err() {
                socket.failure = Some(SendFailure::Disconnected);
            }
            if socket.is_blocked() || socket.failure.is_some() {
                self.attention.push(slot);
            }
        }
    }

    /// Writes what one socket is owed, ahead of its turn.
    pub(crate) fn write_now(&mut self, sockets: &mut Sockets, slot: Slot) {
        let Some(in_current) = sockets.get(slot.0 as usize).map(|socket| socket.in_current) else {
            return;
        };
        self.write(sockets, slot, true);
        // It stays in the list it stands in, and will owe nothing when its turn comes.
        sockets[slot.0 as usize].in_current = in_current;
    }

    /// Writes what the outbox holds, unless it is held back; returns whether nothing is left to write.
    pub(crate) fn write_outbox(&mut self, socket: &mut Socket) -> io::Result<bool> {
        while !socket.held
            && let Some(outbox) = &mut socket.outbox
        {
            if outbox.is_empty() {
                socket.outbox = None;
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut slices);
            self.counters.writes += 1;
            match socket.stream.try_write_vectored(&slices[..count]) {
                Ok(written) => {
                    self.counters.bytes += written as u64;
                    socket.sent_bytes += written as u64;
                    outbox.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        socket.stream.flush()
    }

    /// Writes all a socket is owed with one call; what it does not take goes to its outbox.
    fn write(&mut self, sockets: &mut Sockets, slot: Slot, was_current: bool) {
        let Some(socket) = sockets.get_mut(slot.0 as usize) else { return };
        if was_current {
            socket.in_current = false;
        } else {
            socket.in_backlog = false;
        }
        if socket.owes_nothing() {
            return;
        }
        let (last, first_earlier) = socket.take_owed();
        self.counters.writes += 1;
        let written = if first_earlier == NONE {
            socket.stream.try_write(self.bytes(last))
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.slices(first_earlier, last, &mut slices);
            socket.stream.try_write_vectored(&slices[..count])
        };
        let written = match written {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return self.fail(socket, slot, SendFailure::Disconnected),
        };
        self.counters.bytes += written as u64;
        socket.sent_bytes += written as u64;
        if socket.stream.is_pending() {
            self.attention.push(slot);
        }
        if first_earlier == NONE && written == last.len() {
            return;
        }
        self.keep_rest(socket, slot, (last, first_earlier), written);
    }

    /// Moves what a socket did not take to its outbox.
    fn keep_rest(&mut self, socket: &mut Socket, slot: Slot, owed: (Range, u32), written: usize) {
        let (last, mut node) = owed;
        let mut skip = written;
        loop {
            let (mut range, next) = match node {
                NONE => (last, None),
                node => {
                    let earlier = self.earlier[node as usize];
                    (earlier.range, Some(earlier.next))
                }
            };
            let skipped = skip.min(range.len());
            skip -= skipped;
            range.start += u32::try_from(skipped).expect("at most the range's length");
            if !range.is_empty() {
                self.queue_blocked(socket, slot, range);
            }
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
    }

    /// Queues a run in the outbox of a socket that would block.
    fn queue_blocked(&mut self, socket: &mut Socket, slot: Slot, range: Range) {
        if socket.failure.is_some() {
            return;
        }
        let outbox_bytes_max = self.outbox_bytes_max;
        let outbox = match &mut socket.outbox {
            Some(outbox) => outbox,
            none => {
                self.attention.push(slot);
                none.insert(Box::new(Outbox::new(outbox_bytes_max)))
            }
        };
        let outcome = if self.is_worth_sharing(range) {
            let shared = self.share(range);
            outbox.push(&shared, || shared.clone())
        } else {
            let bytes = self.bytes(range);
            outbox.push(bytes, || Bytes::copy_from_slice(bytes))
        };
        if outcome == Err(Full) {
            self.fail(socket, slot, SendFailure::SlowConsumer);
        }
    }

    fn fail(&mut self, socket: &mut Socket, slot: Slot, failure: SendFailure) {
        socket.failure = Some(failure);
        socket.outbox = None;
        self.attention.push(slot);
        if failure == SendFailure::SlowConsumer {
            self.counters.overflows += 1;
        }
    }

    /// A run is shared only if it is large, and most of the memory that sharing would pin.
    fn is_worth_sharing(&self, range: Range) -> bool {
        let whole = self
            .frozen
            .iter()
            .find(|(start, part)| {
                range.start >= *start && range.end as usize <= *start as usize + part.len()
            })
            .map_or(self.buffer.len(), |(_, part)| part.len());
        range.len() > 4096 && range.len() * 2 >= whole
    }

    fn share(&mut self, range: Range) -> Bytes {
        if range.start >= self.buffer_start {
            let part = Bytes::from(std::mem::take(&mut self.buffer));
            let end = self.buffer_start + u32::try_from(part.len()).expect("bounded by the buffer");
            self.frozen.push((self.buffer_start, part));
            // One is left out, so that no run spans two parts.
            self.buffer_start = end + 1;
        }
        let (start, part) = self.part(range);
        part.slice((range.start - start) as usize..(range.end - start) as usize)
    }

    fn part(&self, range: Range) -> &(u32, Bytes) {
        self.frozen
            .iter()
            .rev()
            .find(|(start, _)| *start <= range.start)
            .expect("a run lies in a part or in the buffer")
    }

    #[inline]
    fn bytes(&self, range: Range) -> &[u8] {
        if range.start >= self.buffer_start {
            let start = self.buffer_start;
            &self.buffer[(range.start - start) as usize..(range.end - start) as usize]
        } else {
            let (start, part) = self.part(range);
            &part[(range.start - start) as usize..(range.end - start) as usize]
        }
    }

    fn slices<'a>(
        &'a self,
        first: u32,
        last: Range,
        slices: &mut [IoSlice<'a>; SLICES_MAX],
    ) -> usize {
        let mut node = first;
        let mut count = 0;
        while node != NONE && count < SLICES_MAX {
            let earlier = self.earlier[node as usize];
            slices[count] = IoSlice::new(self.bytes(earlier.range));
            count += 1;
            node = earlier.next;
        }
        if node == NONE && count < SLICES_MAX {
            slices[count] = IoSlice::new(self.bytes(last));
            count += 1;
        }
        count
    }

    fn end(&self) -> u32 {
        self.buffer_start + u32::try_from(self.buffer.len()).expect("the buffer is bounded")
    }

    /// Nothing is owed any more: offsets begin anew.
    fn reset(&mut self) {
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        self.buffer_start = 0;
        self.frozen.clear();
        self.earlier.clear();
        if self.earlier.capacity() > EARLIER_KEPT {
            self.earlier = Vec::new();
        }
    }
}

#[cfg(test)]
#[path = "fanout_tests.rs"]
mod tests;
