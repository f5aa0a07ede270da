//! The edges' record of themselves in Redis: a sorted set of edges by the end of their lease.
//!
//! Time is Redis' own, so that nobody's clock counts. Owns the commands; when to write and what to make
//! of what is read is for others. The set holds a few edges for as long as they renew their leases.

use std::time::Duration;

use redis_protocol::resp3::types::OwnedFrame;
use signal_core::edges::{EDGES_KEY, EdgeRecord};
use tokio::time::Instant;

use super::{
    Connection,
    node::Failure,
    resp::{number, text},
    route::Route,
};
use crate::EmitterError;

/// For a master that has just been named to be connected.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Connection ===

impl Connection {
    /// Records an edge for so long, and forgets those whose lease is over. For edges.
    pub async fn write_edge(&self, edge: &EdgeRecord, lease: Duration) -> Result<(), EmitterError> {
        let now = now_ms(&self.route).await?;
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let end = now.saturating_add(lease_ms).to_string();
        at_record(&self.route, "ZADD", key(&[&end, &edge.to_json()])).await?;
        at_record(&self.route, "ZREMRANGEBYSCORE", key(&["-inf", &now.to_string()])).await?;
        let seconds = lease.as_secs().saturating_add(1).to_string();
        at_record(&self.route, "EXPIRE", key(&[&seconds])).await?;
        Ok(())
    }

    /// Forgets an edge. For edges.
    pub async fn remove_edge(&self, edge: &EdgeRecord) -> Result<(), EmitterError> {
        at_record(&self.route, "ZREM", key(&[&edge.to_json()])).await?;
        Ok(())
    }

    /// The edges that are there.
    pub(crate) async fn edges(&self) -> Result<Vec<EdgeRecord>, EmitterError> {
        edges(&self.route).await
    }
}

/// The edges that are there. What a later version has written in another form is left out.
pub(super) async fn edges(route: &Route) -> Result<Vec<EdgeRecord>, EmitterError> {
    let now = now_ms(route).await?;
    let living = key(&[&format!("({now}"), "+inf"]);
    let OwnedFrame::Array { data: members, .. } = at_record(route, "ZRANGEBYSCORE", living).await?
    else {
        return Ok(Vec::new());
    };
    let records = members.iter().filter_map(|member| EdgeRecord::from_json(text(member)?));
    Ok(records.collect())
}

/// Milliseconds since the epoch by the clock of the server that has the record.
async fn now_ms(route: &Route) -> Result<u64, EmitterError> {
    let answer = at_record(route, "TIME", Vec::new()).await?;
    let part = |index: usize| match &answer {
        OwnedFrame::Array { data, .. } => number(data.get(index)?),
        _ => None,
    };
    let (Some(seconds), Some(micros)) = (part(0), part(1)) else {
        return Err(EmitterError::Redis("the answer to TIME is no time".to_owned()));
    };
    Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000))
}

/// Runs a command at the server that has the record, and at its successor if it is another's now.
async fn at_record(
    route: &Route,
    command: &'static str,
    arguments: Vec<String>,
) -> Result<OwnedFrame, EmitterError> {
    let owner = || route.owner(EDGES_KEY).ok_or(EmitterError::Disconnected);
    match owner()?.command(command, arguments.clone()).await {
        Err(Failure::Moved(address, text)) => {
            route.moved(&text, address);
            let node = owner()?;
            node.settled(Instant::now() + SETTLE_TIMEOUT).await;
            Ok(node.command(command, arguments).await?)
        }
        answer => Ok(answer?),
    }
}

/// The arguments of a command, its key in front.
fn key(arguments: &[&str]) -> Vec<String> {
    [&[EDGES_KEY], arguments].concat().into_iter().map(str::to_owned).collect()
}
