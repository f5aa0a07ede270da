//! What other threads have for a worker, in order.
//!
//! It owns the commands between being sent and being taken; the worker takes all there are at once,
//! with one lock, so that a burst becomes one batch. Deliveries are bounded in number and bytes, and a
//! delivery beyond is refused and counted by the sender as a gap; the worker itself never waits on it.
//! Control commands (a few per connection or channel) are bounded by what causes them and are never
//! refused.

use std::collections::VecDeque;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Deliveries that may wait.
const DELIVERIES_MAX: usize = 64 * 1024;

/// Bytes of deliveries that may wait.
const DELIVERY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The delivery was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker's queue is full")]
pub(crate) struct QueueFull;

/// The queue; see the module.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    waker: AtomicWaker,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    deliveries: usize,
    delivery_bytes: usize,
    /// Nobody takes any more: what comes is dropped, and with it the sender of its answer.
    closed: bool,
}

// === impl Queue ===

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let inner =
            Inner { items: VecDeque::new(), deliveries: 0, delivery_bytes: 0, closed: false };
        Self { inner: Mutex::new(inner), waker: AtomicWaker::new() }
    }
}

impl<T> Queue<T> {
    /// Appends a control command.
    pub(crate) fn control(&self, item: T) {
        let was_empty = {
            let mut inner = self.inner.lock();
            if inner.closed {
                return;
            }
            inner.items.push_back(item);
            inner.items.len() == 1
        };
        if was_empty {
            self.waker.wake();
        }
    }

    /// The worker has ended: drops what waits, and all that comes later.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.items.clear();
    }

    /// Appends a delivery of `bytes` bytes, if there is room.
    pub(crate) fn delivery(&self, item: T, bytes: usize) -> Result<(), QueueFull> {
        let was_empty = {
            let mut inner = self.inner.lock();
            if inner.closed {
                return Ok(());
            }
            if inner.deliveries == DELIVERIES_MAX
                || inner.delivery_bytes + bytes > DELIVERY_BYTES_MAX
            {
                return Err(QueueFull);
            }
            inner.deliveries += 1;
            inner.delivery_bytes += bytes;
            inner.items.push_back(item);
            inner.items.len() == 1
        };
        if was_empty {
            self.waker.wake();
        }
        Ok(())
    }

    /// Swaps all that waits into `batch`, which must be empty.
    pub(crate) fn take(&self, batch: &mut VecDeque<T>) {
        debug_assert!(batch.is_empty());
        let mut inner = self.inner.lock();
        std::mem::swap(&mut inner.items, batch);
        inner.deliveries = 0;
        inner.delivery_bytes = 0;
    }

    /// Waits until something is there.
    ///
    /// # Cancel safety
    /// Takes nothing; may be dropped and called again. One task at a time.
    pub(crate) async fn ready(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.inner.lock().items.is_empty() {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(())
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_deliveries_are_bounded() {
        let queue = Queue::default();
        queue.control(0);
        for index in 1..=DELIVERIES_MAX {
            assert_eq!(queue.delivery(index, 1), Ok(()));
        }
        assert_eq!(queue.delivery(usize::MAX, 1), Err(QueueFull));
        queue.control(DELIVERIES_MAX + 1);
        let mut batch = VecDeque::new();
        queue.take(&mut batch);
        assert!(batch.into_iter().eq(0..=DELIVERIES_MAX + 1));
        assert_eq!(queue.delivery(1, DELIVERY_BYTES_MAX), Ok(()));
        assert_eq!(queue.delivery(2, 1), Err(QueueFull));
    }

    #[test]
    fn a_closed_queue_drops_what_waits_and_what_comes() {
        let queue = Queue::default();
        let item = std::sync::Arc::new(());
        queue.control(item.clone());
        queue.close();
        queue.control(item.clone());
        assert_eq!(queue.delivery(item.clone(), 1), Ok(()));
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
    }
}
