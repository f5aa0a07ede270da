//! The numbers of an edge as Prometheus reads them (text format 0.0.4).
//!
//! Rendered from [`Counts`] when asked for; nothing is kept here. The names are an interface: they are
//! listed in `docs/metrics.md`, and a test compares the two.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use crate::auth::webhook::Outcome;
use crate::counts::{Counts, Histogram, OUTBOX_BYTES, SECONDS};
use crate::server::{PublishCase, PublishResult, Refusal, SUBJECTS, Shared};
use crate::tls::Tls;

/// Writes one metric after another.
struct Page(String);

pub(crate) fn render(shared: &Shared, counts: &Counts) -> String {
    let mut page = Page(String::new());
    let counters = &counts.counters;
    labelled(&mut page, shared, counts);
    single(&mut page, shared, counts);
    page.histogram(
        "signal_bus_lag_seconds",
        "from a producer's ts to the write",
        &counters.bus_lag,
    );
    page.histogram("signal_login_seconds", "what the authenticator took", &counters.login_time);
    page.histogram(
        "signal_tick_delay_seconds",
        "how late workers' ticks were",
        &counters.tick_delay,
    );
    page.outboxes(counts);
    let links = shared.links.get();
    let probe_age = links.iter().map(|link| link.probe_age()).max().unwrap_or_default();
    page.float("signal_bus_probe_age_seconds", "age of the oldest probe", probe_age.as_secs_f64());
    process(&mut page);
    page.0
}

/// Metrics with a label.
fn labelled(page: &mut Page, shared: &Shared, counts: &Counts) {
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
    let links = shared.links.get();
    let link_states = ["down", "unconfirmed", "confirmed"]
        .map(|name| (name, links.iter().filter(|link| link.get().0.name() == name).count() as u64));
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
    let published = shared.published.get();
    page.head("signal_publishes_total", "counter", "publishes of this edge");
    for (kind, counts) in PublishCase::KINDS.iter().zip(published.chunks(PublishResult::ALL.len()))
    {
        for (result, count) in PublishResult::ALL.iter().zip(counts) {
            let labels = format!("result=\"{result}\",kind=\"{}\"", kind.name());
            page.line("signal_publishes_total", &labels, *count);
        }
    }
    let refused = Refusal::ALL.into_iter().zip(shared.refused.get());
    page.family("signal_refused_total", "counter", "connections refused", "reason", refused);
    let sealed = [("session", counters.sealed_for_sessions), ("room", counters.sealed_for_rooms)];
    page.family("signal_encryptions_total", "counter", "messages sealed", "key", sealed);
    let logins = [
        ("accepted", counters.logins),
        ("rejected", counters.logins_rejected),
        ("failed", counters.logins_failed),
    ];
    page.family("signal_logins_total", "counter", "logins by result", "result", logins);
    let webhook = Outcome::ALL.into_iter().zip(shared.auth.counts.webhook.get());
    page.family(
        "signal_webhook_requests_total",
        "counter",
        "logins asked of the webhook",
        "result",
        webhook,
    );
    let fetches = ["ok", "failed"].into_iter().zip(shared.auth.counts.fetches.get());
    page.family("signal_jwks_fetches_total", "counter", "fetches of keys", "result", fetches);
    let reloads = shared.tls.as_ref().map(|tls| tls.reloads.get()).unwrap_or_default();
    let reloads = Tls::RELOADS.into_iter().zip(reloads);
    page.family("signal_tls_reloads_total", "counter", "certificates read anew", "result", reloads);
    let revocations = SUBJECTS.into_iter().zip(shared.revoked.get());
    page.family("signal_revocations_total", "counter", "revocations obeyed", "of", revocations);
    let revoked =
        [("connection", counters.revoked_connections), ("login", counters.revoked_logins)];
    page.family("signal_revoked_total", "counter", "what revocations ended", "what", revoked);
}

/// Metrics of one value.
fn single(page: &mut Page, shared: &Shared, counts: &Counts) {
    let counters = &counts.counters;
    let accepted = shared.accepted.load(Ordering::Relaxed);
    let (remembered, forgotten) = shared.revocations.counts();
    let is_draining = u64::from(shared.draining.load(Ordering::Relaxed));
    for (name, kind, help, value) in [
        ("signal_opened_total", "counter", "connections opened", counters.opened),
        ("signal_accepted_total", "counter", "TCP connections accepted", accepted),
        ("signal_draining", "gauge", "1 while the edge drains", is_draining),
        ("signal_deliveries_total", "counter", "frames queued for clients", counters.sent.frames),
        ("signal_sent_bytes_total", "counter", "bytes sent to clients", counters.sent.bytes),
        ("signal_writes_total", "counter", "writes to clients' sockets", counters.sent.writes),
        ("signal_outbox_overflows_total", "counter", "slow consumers cut", counters.sent.overflows),
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
        (
            "signal_decryptions_failed_total",
            "counter",
            "sealed messages that did not open",
            counters.decryptions_failed,
        ),
        ("signal_room_keys_total", "counter", "room keys made", counters.room_keys),
        ("signal_hook_errors_total", "counter", "hooks that failed", counters.hook_errors),
        ("signal_bus_messages_total", "counter", "messages from the bus", counters.bus_messages),
        ("signal_bus_gaps_total", "counter", "possible losses on the way", counters.bus_gaps),
        ("signal_resyncs_total", "counter", "clients told to reload", counters.resyncs),
        ("signal_bus_repeats_total", "counter", "repeated messages", counters.bus_repeats),
        (
            "signal_edge_record_failures_total",
            "counter",
            "failures to say in redis that this edge is there",
            shared.publisher.record_failures(),
        ),
        ("signal_bus_connects_total", "counter", "bus links (re)connected", counters.bus_connects),
        ("signal_jwt_keys", "gauge", "keys of tokens", shared.auth.keys().unwrap_or(0) as u64),
        ("signal_revocations", "gauge", "revocations remembered", remembered as u64),
        ("signal_revocations_forgotten_total", "counter", "those forgotten early", forgotten),
        (
            "signal_unauthenticated",
            "gauge",
            "connections not logged in, or no WebSockets yet",
            counts.unauthenticated as u64,
        ),
        ("signal_memberships", "gauge", "memberships of rooms", counts.memberships),
        ("signal_rooms", "gauge", "rooms with members, per worker", counts.rooms),
        ("signal_users", "gauge", "users with connections, per worker", counts.users),
    ] {
        page.single(name, kind, help, value);
    }
}

/// What the kernel says of this process; left out where it does not say.
fn process(page: &mut Page) {
    /// Bytes of a page of memory, as on every machine that this runs on.
    const PAGE_BYTES: u64 = 4096;
    let resident = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * PAGE_BYTES));
    let open_files = std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
    for (name, help, value) in [
        ("signal_resident_bytes", "memory of the process", resident),
        ("signal_open_files", "open files of the process", open_files),
        (
            "signal_open_files_limit",
            "open files it may have",
            Some(crate::config::open_files_limit()),
        ),
    ] {
        if let Some(value) = value {
            page.single(name, "gauge", help, value);
        }
    }
}

// === impl Page ===

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn float(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let bounds = SECONDS.iter().map(f64::to_string);
        self.buckets(name, bounds, &histogram.buckets, &histogram.sum.to_string());
    }

    /// Sizes of the outboxes that are not empty, as they are now.
    fn outboxes(&mut self, counts: &Counts) {
        let name = "signal_outbox_bytes";
        self.head(name, "histogram", "bytes waiting for slow consumers, per connection");
        let bounds = OUTBOX_BYTES.iter().map(u64::to_string);
        self.buckets(name, bounds, &counts.outboxes, &counts.outbox_bytes.to_string());
    }

    fn buckets(
        &mut self,
        name: &str,
        bounds: impl Iterator<Item = String>,
        buckets: &[u64],
        sum: &str,
    ) {
        let mut total = 0;
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(buckets) {
            total += count;
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(self.0, "{name}_sum {sum}\n{name}_count {total}");
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
            self.line(name, &format!("{label}=\"{value}\""), count);
        }
    }
}
