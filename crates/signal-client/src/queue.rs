//! Requests that wait for a connection.
//!
//! Pure. As many as the application has allowed, which is none unless it says so; one more is refused.
//! Whoever has given up takes no place.

use std::collections::VecDeque;

use serde_json::value::RawValue;

use crate::client::{Answer, RequestError};

/// A request, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) event: String,
    pub(crate) data: Box<RawValue>,
    pub(crate) answer: Answer,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    count_max: usize,
    waiting: VecDeque<Request>,
}

// === impl Request ===

impl Request {
    pub(crate) fn refuse(self, error: RequestError) {
        // Who asked may have given up.
        let _ = self.answer.send(Err(error));
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { count_max, waiting: VecDeque::new() }
    }

    /// Lets a request wait, or refuses it.
    pub(crate) fn push(&mut self, request: Request) {
        self.waiting.retain(|request| !request.answer.is_closed());
        if self.waiting.len() < self.count_max {
            self.waiting.push_back(request);
        } else {
            request.refuse(RequestError::Offline);
        }
    }

    /// The one that has waited longest.
    pub(crate) fn pop(&mut self) -> Option<Request> {
        loop {
            let request = self.waiting.pop_front()?;
            if !request.answer.is_closed() {
                return Some(request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn request(event: &str) -> (Request, oneshot::Receiver<Result<Box<RawValue>, RequestError>>) {
        let (answer, answered) = oneshot::channel();
        let data = serde_json::value::to_raw_value(&()).unwrap();
        (Request { event: event.to_owned(), data, answer }, answered)
    }

    #[test]
    fn one_too_many_is_refused_and_order_is_kept() {
        let mut queue = Queue::new(2);
        let mut answers = Vec::new();
        for event in ["a", "b", "c"] {
            let (request, answer) = request(event);
            queue.push(request);
            answers.push(answer);
        }
        let refused = answers[2].try_recv().unwrap();
        assert!(matches!(refused, Err(RequestError::Offline)));
        for event in ["a", "b"] {
            assert_eq!(queue.pop().unwrap().event, event);
        }
        assert!(queue.pop().is_none());
    }

    #[test]
    fn who_has_given_up_takes_no_place() {
        let mut queue = Queue::new(1);
        queue.push(request("given up").0);
        let (second, _answer) = request("second");
        queue.push(second);
        assert_eq!(queue.pop().unwrap().event, "second");
        queue.push(request("given up").0);
        assert!(queue.pop().is_none());
        // Without a word of the application nothing waits.
        let (third, mut answer) = request("third");
        Queue::new(0).push(third);
        assert!(matches!(answer.try_recv(), Ok(Err(RequestError::Offline))));
    }
}
