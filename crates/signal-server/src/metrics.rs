//! The numbers of an edge as Prometheus reads them (text format 0.0.4).
//!
//! Rendered from [`Counts`] when asked for; nothing is kept here. The names are an interface: they are
//! listed in `docs/metrics.md`, and a test compares the two.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use crate::counts::Counts;
use crate::server::Shared;

/// Writes one metric after another.
struct Page(String);

pub(crate) fn render(shared: &Shared, counts: &Counts) -> String {
    let mut page = Page(String::new());
    let counters = &counts.counters;
    let states = ["unauthorized", "authenticating", "authenticated", "closing"]
        .map(|state| (state, counts.connections.get(state).copied().unwrap_or_default()));
    page.family("signal_connections", "gauge", "connections by state", "state", states);
    let closes = counters.closes.iter().map(|(code, count)| (code, *count));
    page.family(
        "signal_closes_total",
        "counter",
        "ended connections by close code",
        "code",
        closes,
    );
    let link_states = ["down", "unconfirmed", "confirmed"].map(|name| {
        let links = shared.links.iter().filter(|link| link.get().0.name() == name).count();
        (name, links as u64)
    });
    page.family("signal_bus_links", "gauge", "bus links by state", "state", link_states);
    let subscriptions = [
        ("wanted", counts.channels_wanted as u64),
        ("confirmed", counts.channels_confirmed as u64),
    ];
    page.family("signal_bus_subscriptions", "gauge", "channels by state", "state", subscriptions);
    let errors = counters.bus_decode_errors.iter().map(|(reason, count)| (reason, *count));
    page.family(
        "signal_bus_decode_errors_total",
        "counter",
        "dropped bus messages by reason",
        "reason",
        errors,
    );
    let published = ["taken", "failed"]
        .into_iter()
        .zip(shared.published.iter().map(|count| count.load(Ordering::Relaxed)));
    page.family("signal_publishes_total", "counter", "publishes of this edge", "result", published);
    let logins = [
        ("accepted", counters.logins),
        ("rejected", counters.logins_rejected),
        ("failed", counters.logins_failed),
    ];
    page.family("signal_logins_total", "counter", "logins by result", "result", logins);
    let refused = shared.refused.load(Ordering::Relaxed);
    for (name, kind, help, value) in [
        ("signal_opened_total", "counter", "connections opened", counters.opened),
        ("signal_refused_total", "counter", "upgrades refused at the cap", refused),
        ("signal_deliveries_total", "counter", "frames queued for clients", counters.sent.frames),
        ("signal_sent_bytes_total", "counter", "bytes sent to clients", counters.sent.bytes),
        ("signal_writes_total", "counter", "writes to clients' sockets", counters.sent.writes),
        ("signal_outbox_overflows_total", "counter", "slow consumers cut", counters.sent.overflows),
        ("signal_outbox_bytes", "gauge", "bytes waiting for slow consumers", counts.outbox_bytes),
        ("signal_received_bytes_total", "counter", "bytes from clients", counters.bytes_received),
        (
            "signal_received_frames_total",
            "counter",
            "frames from clients",
            counters.frames_received,
        ),
        ("signal_messages_invalid_total", "counter", "not JSON objects", counters.messages_invalid),
        ("signal_messages_dropped_total", "counter", "without an event", counters.messages_dropped),
        (
            "signal_messages_unhandled_total",
            "counter",
            "messages that nothing handles",
            counters.messages_unhandled,
        ),
        (
            "signal_rate_exceeded_total",
            "counter",
            "clients over their rate",
            counters.rate_exceeded,
        ),
        (
            "signal_joins_denied_total",
            "counter",
            "rooms asked for and denied",
            counters.joins_denied,
        ),
        ("signal_hook_errors_total", "counter", "hooks that failed", counters.hook_errors),
        ("signal_bus_messages_total", "counter", "messages from the bus", counters.bus_messages),
        ("signal_bus_gaps_total", "counter", "possible losses on the way", counters.bus_gaps),
        ("signal_resyncs_total", "counter", "clients told to reload", counters.resyncs),
        ("signal_rooms", "gauge", "rooms with members, per worker", counts.rooms),
        ("signal_users", "gauge", "users with connections, per worker", counts.users),
    ] {
        page.single(name, kind, help, value);
    }
    page.0
}

// === impl Page ===

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn family<L: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) {
        self.head(name, kind, help);
        for (value, count) in values {
            let _ = writeln!(self.0, "{name}{{{label}=\"{value}\"}} {count}");
        }
    }
}
