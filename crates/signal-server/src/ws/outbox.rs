//! What a socket did not take yet, in order and within a bound.
//!
//! A connection has an outbox only while its socket would block (or its answer to a login is being
//! held back); in the common case frames go from the fan-out's buffer straight to the socket. It owns
//! bytes, never a socket; it never waits; a push beyond the bound is refused and the connection is
//! to be cut as a slow consumer. Small pieces are copied together, so that a slow consumer pins what
//! it is owed and not the buffers it came from; large ones are shared with the other members.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// Pieces up to this size are copied into the tail rather than kept as a piece of their own.
const COPIED_BYTES_MAX: usize = 4096;

/// A tail of this size becomes a piece, so that copying stays cheap.
const TAIL_BYTES_MAX: usize = 16 * 1024;

/// Pieces offered to one write; Linux takes at most 1024.
pub const SLICES_MAX: usize = 64;

/// The bound would be broken: the consumer is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full")]
pub struct Full;

/// The queue; see the module.
#[derive(Debug)]
pub struct Outbox {
    pieces: VecDeque<Bytes>,
    /// Small pieces copied together; after all of `pieces`.
    tail: Vec<u8>,
    /// Bytes in `pieces` and `tail`.
    queued_bytes: usize,
    queued_bytes_max: usize,
}

// === impl Outbox ===

impl Outbox {
    /// An empty outbox that takes up to `queued_bytes_max` bytes.
    pub fn new(queued_bytes_max: usize) -> Self {
        Self { pieces: VecDeque::new(), tail: Vec::new(), queued_bytes: 0, queued_bytes_max }
    }

    /// Appends; `share` is asked for a shared handle on `piece` only if it is too large to copy.
    pub fn push(&mut self, piece: &[u8], share: impl FnOnce() -> Bytes) -> Result<(), Full> {
        if piece.len() > self.queued_bytes_max - self.queued_bytes {
            return Err(Full);
        }
        if piece.is_empty() {
            return Ok(());
        }
        self.queued_bytes += piece.len();
        if piece.len() <= COPIED_BYTES_MAX {
            self.tail.extend_from_slice(piece);
            if self.tail.len() >= TAIL_BYTES_MAX {
                self.end_tail();
            }
        } else {
            self.end_tail();
            self.pieces.push_back(share());
        }
        self.assert_consistent();
        Ok(())
    }

    /// Puts `piece` in front of everything, whatever the bound: the answer to a login, held back
    /// until the bus confirmed, belongs before what arrived meanwhile.
    pub fn push_front(&mut self, piece: Bytes) {
        self.queued_bytes += piece.len();
        self.queued_bytes_max = self.queued_bytes_max.max(self.queued_bytes);
        self.pieces.push_front(piece);
        self.assert_consistent();
    }

    /// The front of the queue as slices for one vectored write; returns how many.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        let tail = (!self.tail.is_empty()).then_some(self.tail.as_slice());
        for (slot, piece) in
            slices.iter_mut().zip(self.pieces.iter().map(AsRef::as_ref).chain(tail))
        {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// Forgets the first `count` bytes: the socket took them.
    pub fn advance(&mut self, mut count: usize) {
        self.queued_bytes -= count;
        while let Some(front) = self.pieces.front_mut() {
            if count < front.len() {
                bytes::Buf::advance(front, count);
                self.assert_consistent();
                return;
            }
            count -= front.len();
            self.pieces.pop_front();
        }
        self.tail.drain(..count);
        self.assert_consistent();
    }

    /// Bytes waiting.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queued_bytes == 0
    }

    fn end_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(Bytes::from(std::mem::take(&mut self.tail)));
        }
    }

    fn assert_consistent(&self) {
        debug_assert!(self.queued_bytes <= self.queued_bytes_max);
        debug_assert_eq!(
            self.queued_bytes,
            self.pieces.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        PushFront(usize),
        Advance(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_usize..10_000).prop_map(Step::Push),
            4 => (0_usize..200).prop_map(Step::Push),
            1 => (0_usize..200).prop_map(Step::PushFront),
            4 => (0_usize..12_000).prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// The model is a plain byte string with a bound.
        #[test]
        fn it_is_a_bounded_byte_queue(steps in proptest::collection::vec(step(), 0..200)) {
            let mut max = 32 * 1024;
            let mut outbox = Outbox::new(max);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0_u8;
            for step in steps {
                let mut bytes = |length: usize| -> Vec<u8> {
                    (0..length).map(|_| { next = next.wrapping_add(1); next }).collect()
                };
                match step {
                    Step::Push(length) => {
                        let piece = bytes(length);
                        let outcome = outbox.push(&piece, || Bytes::copy_from_slice(&piece));
                        prop_assert_eq!(outcome.is_ok(), model.len() + length <= max);
                        if outcome.is_ok() {
                            model.extend(piece);
                        }
                    }
                    Step::PushFront(length) => {
                        let piece = bytes(length);
                        outbox.push_front(Bytes::copy_from_slice(&piece));
                        piece.iter().rev().for_each(|byte| model.push_front(*byte));
                        max = max.max(model.len());
                    }
                    Step::Advance(count) => {
                        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                        let filled = outbox.slices(&mut slices);
                        let front: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
                        let count = count.min(front.len());
                        let expected: Vec<u8> = model.drain(..count).collect();
                        prop_assert_eq!(&front[..count], &expected[..]);
                        outbox.advance(count);
                    }
                }
                prop_assert_eq!(outbox.queued_bytes(), model.len());
                prop_assert_eq!(outbox.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn a_large_piece_is_shared_and_a_small_one_copied() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(&[1; 100], || unreachable!("small pieces are copied")).unwrap();
        let large = Bytes::from(vec![2; COPIED_BYTES_MAX + 1]);
        outbox.push(&large, || large.clone()).unwrap();
        assert_eq!(outbox.pieces.back().map(|piece| piece.as_ptr()), Some(large.as_ptr()));
    }
}
