//! The micro-benchmarks: what the engine does per message, without sockets' kernel side.
//!
//! ```text
//! signal-micro            all of them, with the time per operation
//! signal-micro NAME       one of them, once: what the guard counts the instructions of
//! signal-micro --list
//! ```
//!
//! Each sets up what it needs, then does its work within [`measured_region`], which is the function
//! that callgrind collects. The work is the same in every run: fixed input, fixed counts.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::process::ExitCode;

use signal_benches::websocket::{OPCODE_PONG, OPCODE_TEXT, write_masked};
use signal_server::bench::{FanoutBench, HubBench, WheelBench, write_frame};
use signal_server::core::channel::{Channel, ChannelNames, Target};
use signal_server::core::envelope::{Codec, EMITTER_SERVER_ID, Envelope};
use signal_server::core::json;
use signal_server::core::limits::DATA_DEPTH_MAX;
use signal_server::core::message;
use signal_server::core::v1::Variant;
use signal_server::ws::parser::{Event, Parser};

/// As in the binary `signal`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages per run, so that what a run costs once does not show.
const MESSAGES: usize = 1_000;

/// Sockets of the fan-outs.
const SOCKETS: u32 = 200;

/// Connections of the hub and the wheel.
const CONNECTIONS: u32 = 1_000;

/// Runs of which the fastest is shown.
const TIMED_RUNS: usize = 20;

/// A benchmark: its name, operations per run, and its run, which gives the time of the region.
type Case = (&'static str, usize, fn() -> f64);

const CASES: [Case; 14] = [
    ("parser-text", MESSAGES, parser_text),
    ("parser-pong", MESSAGES, parser_pong),
    ("client-message", MESSAGES, client_message),
    ("envelope-decode-json", MESSAGES, || envelope_decode(Codec::Json)),
    ("envelope-decode-msgpack", MESSAGES, || envelope_decode(Codec::MsgPack)),
    ("channel-parse", MESSAGES, channel_parse),
    ("frame-encode-plain", MESSAGES, || frame_encode(Variant::Plain)),
    ("frame-encode-v1", MESSAGES, || frame_encode(Variant::V1Json)),
    ("frame-encode-v1-msgpack", MESSAGES, || frame_encode(Variant::V1MsgPack)),
    ("hub-admit-and-forget", CONNECTIONS as usize, hub_admit_and_forget),
    ("fanout-room-16", 16 * SOCKETS as usize, fanout_room),
    ("fanout-unicast", SOCKETS as usize, fanout_unicast),
    ("wheel", CONNECTIONS as usize, wheel),
    ("emitter-encode", MESSAGES, emitter_encode),
];

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        Some("--list") => {
            for (name, count, _) in &CASES {
                say(&format!("{name} {count}"));
            }
        }
        None => {
            for case in &CASES {
                time(case);
            }
        }
        Some(wanted) => {
            let Some((_, _, run)) = CASES.iter().find(|(name, _, _)| *name == wanted) else {
                eprintln!("signal-micro: there is no benchmark {wanted}");
                return ExitCode::from(64);
            };
            run();
        }
    }
    ExitCode::SUCCESS
}

/// Prints the time of an operation.
fn time((name, count, run): &Case) {
    let fastest = (0..TIMED_RUNS).map(|_| run()).fold(f64::INFINITY, f64::min);
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let nanos = fastest * 1e9 / *count as f64;
    say(&format!("{name:<26} {nanos:>9.1} ns"));
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

/// What is counted: nothing outside of it.
#[inline(never)]
fn measured_region(work: impl FnOnce()) {
    work();
}

/// Seconds that the work took.
#[expect(
    clippy::disallowed_types,
    reason = "the crate's clock asks what is not there under valgrind"
)]
fn measure(work: impl FnOnce()) -> f64 {
    let start = std::time::Instant::now();
    measured_region(work);
    start.elapsed().as_secs_f64()
}

fn data() -> String {
    format!(
        r#"{{"id":184500,"total":"1250.00","items":[{{"sku":"A-1","count":2}},{{"sku":"B-7","count":1}}],"note":"{}"}}"#,
        "x".repeat(130)
    )
}

/// Frames as a client sends them, one read's worth at a time.
fn client_frames(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..MESSAGES {
        write_masked(&mut frames, opcode, payload);
    }
    frames
}

fn parse_all(mut frames: Vec<u8>) -> f64 {
    let mut parser = Parser::default();
    let mut count = 0;
    let seconds = measure(|| {
        // A read of the worker takes 64 KiB at most, so frames are cut wherever that ends.
        for read in frames.chunks_mut(64 * 1024) {
            let parsed = parser.advance(read, 64 * 1024, |event| {
                count += usize::from(!matches!(event, Event::Close(_)));
                ControlFlow::Continue(())
            });
            parsed.expect("the frames are well-formed");
        }
    });
    assert_eq!(count, MESSAGES);
    seconds
}

fn parser_text() -> f64 {
    let text = format!(r#"{{"event":"note","data":{}}}"#, data());
    parse_all(client_frames(OPCODE_TEXT, text.as_bytes()))
}

fn parser_pong() -> f64 {
    parse_all(client_frames(OPCODE_PONG, b""))
}

fn client_message() -> f64 {
    let text = format!(r#"{{"event":"note","data":{}}}"#, data());
    measure(|| {
        for _ in 0..MESSAGES {
            let parsed = message::parse(black_box(&text));
            black_box(&parsed.expect("the message is well-formed"));
        }
    })
}

fn envelope(codec: Codec, data: &str) -> Vec<u8> {
    let target = Target::Room("branch:12");
    let mut envelope = Envelope::new(EMITTER_SERVER_ID, target, "order.created", Some(data));
    envelope.id = Some("01975c5e-2b1f-7c11-8a5e-0123456789ab".into());
    envelope.ts = Some(1_760_000_000_000);
    let mut bytes = Vec::new();
    envelope.encode(codec, &mut bytes);
    bytes
}

fn envelope_decode(codec: Codec) -> f64 {
    let bytes = envelope(codec, &data());
    measure(|| {
        for _ in 0..MESSAGES {
            let envelope =
                Envelope::decode(black_box(&bytes)).expect("the envelope is well-formed");
            assert!(black_box(&envelope).matches(Target::Room("branch:12")));
        }
    })
}

fn channel_parse() -> f64 {
    let names = ChannelNames::default();
    measure(|| {
        for _ in 0..MESSAGES {
            black_box::<Option<Channel<'_>>>(names.parse(black_box("ws:room:branch:12")));
        }
    })
}

fn frame_encode(variant: Variant) -> f64 {
    let data = data();
    let mut out = Vec::with_capacity(64 * 1024);
    measure(|| {
        for _ in 0..MESSAGES {
            out.clear();
            write_frame(&mut out, variant, black_box(&data));
            black_box(&out);
        }
    })
}

fn hub_admit_and_forget() -> f64 {
    let mut hub = HubBench::new(CONNECTIONS);
    hub.forget();
    measure(|| {
        hub.admit(CONNECTIONS);
        black_box(hub.forget());
    })
}

fn fanout_room() -> f64 {
    fan_out(|fanout| fanout.run_room(16))
}

fn fanout_unicast() -> f64 {
    fan_out(FanoutBench::run_unicast)
}

fn fan_out(run: impl Fn(&mut FanoutBench)) -> f64 {
    let mut fanout = FanoutBench::new(SOCKETS, Variant::Plain).expect("loopback takes sockets");
    // The first run grows the buffers.
    run(&mut fanout);
    let first = fanout.drain().expect("what was written can be read");
    let seconds = measure(|| run(&mut fanout));
    assert_eq!(fanout.drain().expect("what was written can be read"), first);
    seconds
}

fn wheel() -> f64 {
    let mut wheel = WheelBench::new(CONNECTIONS);
    measure(|| assert_eq!(black_box(wheel.run()), CONNECTIONS))
}

/// What an emitter does with a message before Redis has it, except for its id.
fn emitter_encode() -> f64 {
    let names = ChannelNames::default();
    let data = data();
    measure(|| {
        for _ in 0..MESSAGES {
            let target = Target::Room(black_box("branch:12"));
            let data = json::validate(black_box(&data), DATA_DEPTH_MAX).expect("the data is JSON");
            let mut envelope =
                Envelope::new(EMITTER_SERVER_ID, target, "order.created", Some(data));
            envelope.id = Some("01975c5e-2b1f-7c11-8a5e-0123456789ab".into());
            envelope.ts = Some(1_760_000_000_000);
            let mut bytes = Vec::with_capacity(256 + data.len());
            envelope.encode(Codec::Json, &mut bytes);
            black_box((names.name(target), bytes));
        }
    })
}
