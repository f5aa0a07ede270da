//! One edge with one, two and four workers, on the in-process bus and on a real Redis: whichever worker
//! listens for a group, each member gets each message once and in order, however others come and go.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use signal_core::id::ClientId;
use signal_server::hooks::HookError;
use signal_server::{Client, Message, Publication, Signal, SignalHandle};
use support::{Edge, Redis, Socket, config, socket, until, within};

/// Edges of each number of workers on each kind of bus.
async fn each_edge(redis: &Redis, linger: Duration, mut test: impl AsyncFnMut(&Edge, usize)) {
    for workers in [1, 2, 4] {
        for on_redis in [false, true] {
            let mut settings = config();
            settings.workers = workers;
            settings.bus_linger = linger;
            // A busy machine must not look like a Redis that is silent: no gap is allowed here.
            settings.bus_probe_interval = Duration::from_secs(10);
            // Guests come and go as fast as they can.
            settings.message_rate = 1_000_000;
            settings.message_burst = 1_000_000;
            if on_redis {
                settings.redis = redis.settings();
            }
            let edge = Edge::with(settings).await;
            edge.ready().await;
            test(&edge, workers).await;
            edge.is_empty().await;
            assert_eq!(edge.counts().await.counters.bus_gaps, 0);
            edge.stop().await;
            until("redis is asked for nothing", async || redis.channels().await.is_empty()).await;
        }
    }
}

fn worker(socket: &Socket) -> u8 {
    ClientId::parse(&socket.id).expect("an id").worker()
}

/// Clients of a user each, so many on each worker, ordered by worker.
async fn spread(edge: &Edge, workers: usize, each: usize) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for number in 0..workers * each {
        sockets.push(edge.login(&format!("u{}", number % 3)).await);
    }
    sockets.sort_by_key(worker);
    for (index, socket) in sockets.iter().enumerate() {
        assert_eq!(usize::from(worker(socket)), index / each, "the acceptor spreads connections");
    }
    sockets
}

/// The numbers that came before a marker to the room `r`.
async fn numbers(edge: &Edge, sockets: &mut [Socket]) -> Vec<Vec<(String, u64)>> {
    edge.handle.send_to_room("r", "fence", &0).await.expect("published");
    let mut all = Vec::new();
    for socket in sockets {
        let mut numbers = Vec::new();
        loop {
            match socket.next_event().await {
                (event, _) if event == "fence" => break,
                (event, data) => numbers.push((event, data.as_u64().expect("a number"))),
            }
        }
        all.push(numbers);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_users_and_broadcasts_reach_all_workers_but_those_excluded() {
    let redis = Redis::start().await;
    each_edge(&redis, Duration::from_millis(50), async |edge, workers| {
        let mut sockets = spread(edge, workers, 3).await;
        // The first of them makes its worker the home.
        for socket in &mut sockets {
            edge.join(socket, &["r"]).await;
        }
        for round in 0..2 {
            let last = sockets.last().expect("some").id.clone();
            let but = [sockets[0].id.clone(), last];
            for number in 0..50_u64 {
                let room = Publication::room("r", "room").data(&number).expect("JSON");
                let but_room = Publication::room("r", "but").data(&number).expect("JSON");
                edge.handle.publish(room).await.expect("published");
                edge.handle.publish(but_room.exclude(&but)).await.expect("published");
            }
            let ids: Vec<String> = sockets.iter().map(|socket| socket.id.clone()).collect();
            for (id, numbers) in ids.iter().zip(numbers(edge, &mut sockets).await) {
                let mut expected = Vec::new();
                for number in 0..50 {
                    expected.push(("room".to_owned(), number));
                    if !but.contains(id) {
                        expected.push(("but".to_owned(), number));
                    }
                }
                assert_eq!(numbers, expected, "round {round}, {workers} workers");
            }
            users_and_broadcasts(edge, &mut sockets, &but).await;
            if workers > 1 && round == 0 {
                // The home's own members leave, and the home stays.
                for socket in sockets.drain(..3) {
                    socket.close().await;
                }
            }
        }
        for socket in sockets {
            socket.close().await;
        }
    })
    .await;
}

/// A user's messages reach its sockets alone, broadcasts all that are not excluded.
async fn users_and_broadcasts(edge: &Edge, sockets: &mut [Socket], but: &[String]) {
    let mut users = Vec::new();
    for socket in sockets.iter() {
        let client = ClientId::parse(&socket.id);
        let found = edge.handle.connections(None, None, client, 1).await.expect("the edge runs");
        users.push(found[0].user.clone().expect("a user"));
    }
    for number in 0..20_u64 {
        for user in ["u0", "u1", "u2"] {
            edge.handle.send_to_user(user, user, &number).await.expect("published");
        }
    }
    for (socket, user) in sockets.iter_mut().zip(&users) {
        for number in 0..20 {
            assert_eq!(socket.event(user).await, json!(number));
        }
    }
    for number in 0..20_u64 {
        let broadcast = Publication::broadcast("all").data(&number).expect("JSON");
        edge.handle.publish(broadcast).await.expect("published");
        let broadcast = Publication::broadcast("but").data(&number).expect("JSON");
        edge.handle.publish(broadcast.exclude(but)).await.expect("published");
    }
    edge.handle.broadcast("end", &0).await.expect("published");
    for socket in sockets {
        for number in 0..20 {
            assert_eq!(socket.event("all").await, json!(number));
            if !but.contains(&socket.id) {
                assert_eq!(socket.event("but").await, json!(number));
            }
        }
        socket.event("end").await;
    }
}

/// Publishes numbers to the room `r` until told to stop; returns the next one.
async fn produce(handle: SignalHandle, stop: Arc<AtomicBool>) -> u64 {
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        handle.send_to_room("r", "n", &number).await.expect("published");
        number += 1;
        if number % 8 == 0 {
            // The in-process bus takes as fast as it is asked; the members have to follow.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    number
}

/// A client whose joins are acknowledged. What it gets between an acknowledgement and its next leave
/// has no gap, and nothing comes twice or late.
struct Guest {
    socket: Socket,
    last: Option<u64>,
    /// A join is acknowledged: the next number is the one behind `last`, if there was one since.
    is_member: bool,
}

// === impl Guest ===

impl Guest {
    async fn new(edge: &Edge) -> Self {
        let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
        socket.login("guest").await;
        Self { socket, last: None, is_member: false }
    }

    async fn send(&mut self, event: &str, id: &str) {
        let request = json!({ "event": event, "data": { "rooms": ["r"] }, "id": id });
        self.socket.send(&request).await;
    }

    /// Takes the next message; returns the id that it acknowledges, if any.
    async fn next(&mut self, since_join: &mut u64) -> Option<String> {
        let mut message: Value = serde_json::from_str(&self.socket.text().await).expect("JSON");
        match message["event"].as_str() {
            Some("ack") => return message["id"].take().as_str().map(str::to_owned),
            Some("n") => {}
            // Of a link that connected as the edge began.
            Some("resync") => return None,
            event => panic!("{event:?}"),
        }
        let number = message["data"].as_u64().expect("a number");
        if let Some(last) = self.last {
            assert!(number > last, "{number} after {last}");
            assert!(
                !self.is_member || *since_join == 0 || number == last + 1,
                "{number} after {last}"
            );
        }
        self.last = Some(number);
        if self.is_member {
            *since_join += 1;
        }
        None
    }

    async fn acknowledged(&mut self, id: &str, since_join: &mut u64) {
        while self.next(since_join).await.as_deref() != Some(id) {}
    }

    /// Joins, stays for so many messages, and leaves.
    async fn visit(&mut self, messages: u64, restless: bool) {
        let mut since_join = 0;
        if restless {
            // In one burst: the home hears of members that are gone again.
            self.send("join", "restless join").await;
            self.send("leave", "restless leave").await;
        }
        self.send("join", "join").await;
        if restless {
            self.acknowledged("restless leave", &mut since_join).await;
        }
        self.acknowledged("join", &mut since_join).await;
        self.is_member = true;
        while since_join < messages {
            self.next(&mut since_join).await;
        }
        self.send("leave", "leave").await;
        self.acknowledged("leave", &mut since_join).await;
        self.is_member = false;
    }
}

/// Nobody stays: the room is given up and taken up again all the time, by whatever worker comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_home_moves_loses_and_doubles_nothing() {
    let redis = Redis::start().await;
    for linger in [Duration::ZERO, Duration::from_millis(50)] {
        each_edge(&redis, linger, async |edge, workers| {
            let stop = Arc::new(AtomicBool::new(false));
            let producing = tokio::spawn(produce(edge.handle.clone(), stop.clone()));
            let mut guests = Vec::new();
            for number in 0..2 * workers as u64 {
                let mut guest = Guest::new(edge).await;
                guests.push(tokio::spawn(async move {
                    for round in 0..400 {
                        guest.visit(1 + number % 3, round % 3 == number % 3).await;
                    }
                    guest.socket
                }));
            }
            for guest in guests {
                within("a guest is done", guest).await.expect("its checks hold").close().await;
            }
            stop.store(true, Ordering::Relaxed);
            within("the producer stops", producing).await.expect("it does not panic");
        })
        .await;
    }
}

/// What waits for a home whose time ends is not for who comes next: those messages that were published
/// behind it, when nobody was there, are not for it either, and it would see a gap.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_an_earlier_home_is_not_for_the_next() {
    let (entered, mut entries) = tokio::sync::mpsc::channel(1);
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let told = Mutex::new(told);
    // Blocks its worker, which must never be done but shows what waits meanwhile.
    let on_message = move |_: Client, _: Message| {
        entered.try_send(()).expect("the test waits");
        let told = told.lock().recv_timeout(Duration::from_secs(20));
        async move { told.map_err(|error| HookError::from(error.to_string())) }
    };
    let mut settings = config();
    settings.workers = 2;
    let edge = Edge::build(Signal::builder().config(settings).on_message(on_message)).await;
    let mut guest = edge.member("guest", &["r"]).await;
    let publish = async |number: u64| {
        edge.handle.send_to_room("r", "n", &number).await.expect("published");
    };
    let rooms = json!({ "rooms": ["r"] });
    // In one write, so that one read takes them all and nothing else gets its turn between.
    let requests = [
        json!({ "event": "stop here" }),
        json!({ "event": "leave", "data": rooms }),
        json!({ "event": "stop here" }),
        json!({ "event": "join", "data": rooms }),
    ];
    let frames = requests.map(|request| socket::frame(0x81, request.to_string().as_bytes()));
    guest.send_raw(&frames.concat()).await;
    within("it stops as a member", entries.recv()).await.expect("the edge runs");
    publish(0).await;
    go_on.send(()).expect("the hook waits");
    within("it stops when it has left", entries.recv()).await.expect("the edge runs");
    publish(1).await;
    go_on.send(()).expect("the hook waits");
    guest.marker(&edge.handle, "r").await;
    publish(2).await;
    assert_eq!(guest.next_event().await, ("n".to_owned(), json!(2)));
    guest.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

/// Some stay: whoever comes and goes, they miss nothing, and guests neither while they are members.
#[tokio::test(flavor = "multi_thread")]
async fn members_that_stay_miss_nothing_while_others_come_and_go() {
    let redis = Redis::start().await;
    each_edge(&redis, Duration::ZERO, async |edge, workers| {
        let mut sockets = spread(edge, workers, 2).await;
        for socket in &mut sockets {
            edge.join(socket, &["r"]).await;
        }
        // One of two leaves each worker, and all of the home's.
        let mut sockets: Vec<Socket> = sockets.into_iter().skip(1).step_by(2).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let producing = tokio::spawn(produce(edge.handle.clone(), stop.clone()));
        let guests: Vec<_> = (0..2 * workers as u64)
            .map(|number| {
                let address = edge.address;
                tokio::spawn(async move {
                    let mut socket = Socket::connect_as(address, "signal.v1.json").await;
                    socket.login("guest").await;
                    let mut guest = Guest { socket, last: None, is_member: false };
                    for round in 0..40 {
                        guest.visit(2, round % 2 == number % 2).await;
                    }
                    guest.socket
                })
            })
            .collect();
        for guest in guests {
            within("a guest is done", guest).await.expect("its checks hold").close().await;
        }
        stop.store(true, Ordering::Relaxed);
        let end = within("the producer stops", producing).await.expect("it does not panic");
        for numbers in numbers(edge, &mut sockets).await {
            let expected: Vec<_> = (0..end).map(|number| ("n".to_owned(), number)).collect();
            assert!(numbers == expected, "{} of {end} arrived, in whatever order", numbers.len());
        }
        for socket in sockets {
            socket.close().await;
        }
    })
    .await;
}

/// A room of thousands through Redis, over two workers: all arrives at each, in order, and what goes to
/// one client arrives meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_thousands_gets_everything_in_order() {
    const MEMBERS: usize = 3000;
    const MESSAGES: usize = 40;
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut sockets: Vec<Socket> = futures_util::stream::iter(0..MEMBERS)
        .map(|_| edge.login("u"))
        .buffer_unordered(16)
        .collect()
        .await;
    let mut single = edge.member("single", &["few"]).await;
    let pad = "x".repeat(4000);
    for number in 0..MESSAGES {
        edge.handle.send_to_room("ws-default", "n", &(number, &pad)).await.expect("published");
        edge.handle.send_to_client(&single.id, "client", &number).await.expect("sent");
        edge.handle.send_to_user("single", "user", &number).await.expect("published");
        edge.handle.send_to_room("few", "few", &number).await.expect("published");
    }
    edge.handle.broadcast("end", &0).await.expect("published");
    edge.handle.send_to_room("ws-default", "end", &0).await.expect("published");
    // Counted alone per stream, since streams may overtake each other.
    let mut next = std::collections::BTreeMap::from([("client", 0), ("user", 0), ("few", 0)]);
    while next.values().any(|next| *next < MESSAGES) {
        let (event, data) = single.next_event().await;
        if let Some(next) = next.get_mut(event.as_str()) {
            assert_eq!(data, json!(*next), "{event}");
            *next += 1;
        }
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        let (mut next, mut ends) = (0, 0);
        while ends < 2 {
            match socket.next_event().await {
                (event, _) if event == "end" => ends += 1,
                (_, data) => {
                    assert_eq!(data[0], json!(next), "member {index}");
                    next += 1;
                }
            }
        }
        assert_eq!(next, MESSAGES, "member {index}");
    }
    let counters = edge.counts().await.counters;
    assert_eq!((counters.bus_gaps, counters.sent.overflows), (0, 0));
    let closing = sockets.into_iter().map(Socket::close);
    futures_util::stream::iter(closing).buffer_unordered(64).collect::<Vec<_>>().await;
    single.close().await;
    edge.is_empty().await;
    until("redis is at its baseline", async || redis.channels().await.len() == 4).await;
}
