//! A real Redis of the test's own, and a subscriber that is nothing but a socket.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use signal_emitter::{Emitter, EmitterConfig, redis::RedisSettings};

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
        for _ in 0..START_ATTEMPTS {
            let port = free_port();
            if let Some(redis) = Self::start_on(port) {
                return redis;
            }
        }
        panic!("redis-server does not start");
    }

    /// `None` if it stops again, for instance because somebody else took the port.
    pub(crate) fn start_on(port: u16) -> Option<Self> {
        let mut process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"])
            .arg(port.to_string())
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
        Emitter::connect(EmitterConfig::new(self.settings())).await.unwrap()
    }

    pub(crate) fn socket(&self) -> Socket {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Socket { reader: BufReader::new(stream) }
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
        let Reply::Array(parts) = self.reply() else { panic!("not a push") };
        let [Reply::Bytes(kind), Reply::Bytes(channel), Reply::Bytes(payload)] = parts.as_slice()
        else {
            panic!("not a message: {parts:?}");
        };
        assert_eq!(kind, b"message");
        (String::from_utf8(channel.clone()).unwrap(), payload.clone())
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

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Fails a test that hangs; says nothing about how long it may take.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}
