//! Is there an edge that would hear this emitter?
//!
//! Owns the comparison of an emitter's settings with what edges have recorded of theirs. It must never
//! stand in the way of an emitter for a reason of its own: a record that may not be read is a warning.

use std::time::Duration;

use signal_core::{edges::EdgeRecord, envelope::Codec, redis::RedisSettings};
use tokio::time::Instant;
use tracing::warn;

use crate::{EdgeCheck, EmitterConfig, EmitterError, connection::Connection};

/// How often the record is read while there is no edge in it: after a restart, Redis has forgotten
/// them, and they come back within a second.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Looks for edges as the check asks for.
pub(crate) async fn check(
    connection: &Connection,
    config: &EmitterConfig,
) -> Result<(), EmitterError> {
    let until = Instant::now() + config.timeout;
    loop {
        let found = match config.edge_check {
            EdgeCheck::Off => return Ok(()),
            EdgeCheck::Require | EdgeCheck::Warn => connection.edges().await,
        };
        let problem = match found {
            Ok(edges) => match judge(&edges, &config.redis) {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            },
            Err(error) => {
                warn!(%error, "cannot read which edges are there");
                return Ok(());
            }
        };
        if config.edge_check == EdgeCheck::Warn {
            warn!("{problem}");
            return Ok(());
        }
        if Instant::now() + LOOK_INTERVAL >= until {
            return Err(problem);
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether one of the edges hears what an emitter with these settings publishes.
fn judge(edges: &[EdgeRecord], settings: &RedisSettings) -> Result<(), EmitterError> {
    let Some(first) = edges.first() else { return Err(EmitterError::NoEdges) };
    let pubsub = settings.pubsub.name();
    let mut alike =
        edges.iter().filter(|edge| edge.prefix == settings.prefix && edge.pubsub == pubsub);
    let Some(edge) = alike.next() else {
        return Err(EmitterError::Mismatch {
            edges: describe(&first.prefix, &first.pubsub),
            emitter: describe(&settings.prefix, pubsub),
        });
    };
    if settings.codec != Codec::default() && edge.codec != settings.codec.name() {
        // Both are understood by edges of Signal, but what is set differently was meant differently.
        warn!(
            edges = edge.codec,
            emitter = settings.codec.name(),
            "edges send another codec than this emitter"
        );
    }
    Ok(())
}

fn describe(prefix: &str, pubsub: &str) -> String {
    match prefix {
        "" => format!("no prefix and {pubsub} pub/sub"),
        prefix => format!("the prefix {prefix:?} and {pubsub} pub/sub"),
    }
}

#[cfg(test)]
mod tests {
    use signal_core::redis::PubSub;

    use super::*;

    fn edge(prefix: &str, pubsub: PubSub) -> EdgeRecord {
        let settings =
            RedisSettings { prefix: prefix.to_owned(), pubsub, ..RedisSettings::default() };
        EdgeRecord::new("signal-1", "0.1.0", &settings)
    }

    #[test]
    fn one_edge_that_hears_is_enough() {
        let settings = RedisSettings::default();
        judge(&[edge("", PubSub::Classic)], &settings).unwrap();
        judge(&[edge("live:", PubSub::Classic), edge("", PubSub::Classic)], &settings).unwrap();
    }

    #[test]
    fn the_problem_names_both_sides() {
        let settings = RedisSettings { prefix: "test:".to_owned(), ..RedisSettings::default() };
        let sentence = |edges: &[EdgeRecord]| judge(edges, &settings).unwrap_err().to_string();
        assert_eq!(sentence(&[]), "no edge of signal is connected to this redis");
        assert_eq!(
            sentence(&[edge("", PubSub::Classic)]),
            "no edge would hear this emitter: edges on this redis use no prefix and classic \
             pub/sub, the emitter the prefix \"test:\" and classic pub/sub"
        );
        assert_eq!(
            sentence(&[edge("test:", PubSub::Sharded)]),
            "no edge would hear this emitter: edges on this redis use the prefix \"test:\" and \
             sharded pub/sub, the emitter the prefix \"test:\" and classic pub/sub"
        );
    }
}
