# The one door: `just` lists what there is.

_list:
    @just --list --unsorted

# Run the demo: edge, page, made-up traffic
demo:
    cargo run --release --bin signal -- demo

# Run an edge, configured by the environment
run *arguments:
    cargo run --release --bin signal -- serve {{arguments}}

# Everything CI runs
check:
    ./scripts/test.sh

# Formatting, lints, documents, Rust tests
test:
    ./scripts/test.sh rust

# Checks of the deployment files
deploy:
    ./scripts/test.sh deploy

# A rolling restart behind Traefik, measured
rolling *arguments:
    node e2e/rolling.mjs {{arguments}}

# What clients see of each fault of Redis, measured
faults *arguments:
    node e2e/faults.mjs {{arguments}}

# What a growing fleet costs Redis, measured
scale-out *arguments:
    node e2e/scale-out.mjs {{arguments}}

# Node and browser tests
e2e:
    ./scripts/test.sh e2e

# Tests of the JavaScript client
client:
    cd clients/js && npm test

# Pictures of the demo page for the documents
screenshots:
    cargo build --release --bin signal
    cd e2e && node screenshots.mjs

# The public WebSocket suite
conformance:
    ./scripts/test.sh conformance

# Every budget, measured beside the floor: about six minutes
bench *arguments:
    cargo build --release --bin signal
    cargo build --release -p signal-benches --features emitter
    target/release/signal-bench {{arguments}}

# What a fleet of edges costs as it grows, on one Redis and on a cluster: about eight minutes
fleet *arguments:
    cargo build --release --bin signal
    cargo build --release -p signal-benches
    target/release/signal-bench fleet {{arguments}}

# The same scenarios on other servers, each installed by its own package manager
bench-peers *arguments:
    ./benches/peers/install.sh
    cargo build --release --bin signal
    cargo build --release -p signal-benches
    target/release/signal-bench --peers benches/.cache {{arguments}}

# Instruction counts of the micro-benchmarks against the committed ones
guard:
    ./scripts/test.sh guard

# Commit to the instruction counts of now
baseline:
    ./scripts/test.sh guard --write

# Fuzz one target: client_message, encrypted, envelope, frame, token
fuzz target seconds="60":
    cd fuzz && cargo +nightly fuzz run {{target}} -- -max_total_time={{seconds}}

# Licences, sources and advisories of dependencies (needs cargo-deny)
deny:
    cargo deny check
