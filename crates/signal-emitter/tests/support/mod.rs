//! A real Redis of the test's own, and a subscriber that is nothing but a socket.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use signal_emitter::{EdgeCheck, Emitter, EmitterConfig, redis::RedisSettings};

/// Longer than anything takes; only a test that hangs sees it.
const PATIENCE: Duration = Duration::from_mins(1);

const START_ATTEMPTS: usize = 5;

/// A `redis-server` on a port of its own, killed when dropped.
pub(crate) struct Redis {
    process: Child,
    pub(crate) port: u16,
}

/// One RESP2 connection.
pub(crate) struct Socket {
    reader: BufReader<TcpStream>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Text(String),
    Error(String),
    Number(i64),
    Bytes(Vec<u8>),
    Array(Vec<Self>),
    Nil,
}

// === impl Redis ===

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        for _ in 0..START_ATTEMPTS {
            if let Some(redis) = Self::try_start(free_port(), arguments) {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// `None` if it stops again, for instance because somebody else took the port.
    pub(crate) fn start_on(port: u16) -> Option<Self> {
        Self::try_start(port, &[])
    }

    fn try_start(port: u16, arguments: &[&str]) -> Option<Self> {
        let mut process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is installed");
        let output = process.stdout.take().unwrap();
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        if !lines.any(|line| line.contains("Ready to accept connections")) {
            process.wait().unwrap();
            return None;
        }
        // Its output goes on and must be read, lest it blocks.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { process, port })
    }

    pub(crate) fn settings(&self) -> RedisSettings {
        RedisSettings::single("127.0.0.1", self.port)
    }

    pub(crate) async fn emitter(&self) -> Emitter {
        Emitter::connect(emitter_config(self.settings())).await.unwrap()
    }

    pub(crate) fn socket(&self) -> Socket {
        Socket::connect(self.port)
    }

    pub(crate) fn subscriber(&self, channel: &str) -> Socket {
        let mut socket = self.socket();
        assert_eq!(socket.call(&["SUBSCRIBE", channel]), Reply::push("subscribe", channel, 1));
        socket
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

// === impl Socket ===

impl Socket {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// Subscribes to a sharded channel; returns whether the server took it.
    pub(crate) fn listen_sharded(&mut self, channel: &str) -> bool {
        self.call(&["SSUBSCRIBE", channel]) == Reply::push("ssubscribe", channel, 1)
    }

    pub(crate) fn call(&mut self, command: &[&str]) -> Reply {
        let mut bytes = Vec::new();
        write!(bytes, "*{}\r\n", command.len()).unwrap();
        for part in command {
            write!(bytes, "${}\r\n{part}\r\n", part.len()).unwrap();
        }
        self.reader.get_mut().write_all(&bytes).unwrap();
        self.reply()
    }

    /// The next message of a subscriber: its channel and payload.
    pub(crate) fn message(&mut self) -> (String, Vec<u8>) {
        self.message_or_end().expect("it is a message")
    }

    /// The same, or `None` when the server ends a sharded subscription.
    pub(crate) fn message_or_end(&mut self) -> Option<(String, Vec<u8>)> {
        let Reply::Array(parts) = self.reply() else { panic!("not a push") };
        if parts.first() == Some(&Reply::Bytes(b"sunsubscribe".to_vec())) {
            return None;
        }
        let [Reply::Bytes(kind), Reply::Bytes(channel), Reply::Bytes(payload)] = parts.as_slice()
        else {
            panic!("not a message: {parts:?}");
        };
        assert!([&b"message"[..], b"smessage"].contains(&kind.as_slice()), "{parts:?}");
        Some((String::from_utf8(channel.clone()).unwrap(), payload.clone()))
    }

    fn reply(&mut self) -> Reply {
        let line = self.line();
        let (kind, rest) = line.split_at(1);
        match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(rest.parse().unwrap()),
            "$" if rest == "-1" => Reply::Nil,
            "$" => {
                let mut bytes = vec![0; rest.parse().unwrap()];
                self.reader.read_exact(&mut bytes).unwrap();
                assert_eq!(self.line(), "");
                Reply::Bytes(bytes)
            }
            "*" => Reply::Array((0..rest.parse().unwrap()).map(|_| self.reply()).collect()),
            _ => panic!("not RESP: {line}"),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").expect("redis ends its lines").to_owned()
    }
}

// === impl Reply ===

impl Reply {
    fn push(kind: &str, channel: &str, count: i64) -> Self {
        Self::Array(vec![
            Self::Bytes(kind.as_bytes().to_vec()),
            Self::Bytes(channel.as_bytes().to_vec()),
            Self::Number(count),
        ])
    }
}

/// For an emitter that takes a Redis as it is, without edges.
pub(crate) fn emitter_config(settings: RedisSettings) -> EmitterConfig {
    let mut config = EmitterConfig::new(settings);
    config.edge_check = EdgeCheck::Off;
    config
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Fails a test that hangs; says nothing about how long it may take.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

/// Polls once; `None` if it is not done.
pub(crate) async fn poll_once<T>(
    mut future: std::pin::Pin<&mut (impl Future<Output = T> + ?Sized)>,
) -> Option<T> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
