//! A real Redis on a port of its own, which tests may stop, start, pause and look into.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use signal_core::redis::RedisSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{until, within};

/// The server; it ends with this value.
#[derive(Debug)]
pub struct Redis {
    pub port: u16,
    arguments: Vec<String>,
    process: Option<Child>,
}

// === impl Redis ===

impl Redis {
    /// Starts one and waits until it answers.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With further arguments, as on its command line.
    pub async fn with(arguments: &[&str]) -> Self {
        let mut redis = Self::stopped(arguments);
        redis.restart().await;
        redis
    }

    /// A port on which nothing runs yet.
    pub fn stopped(arguments: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Self { port, arguments, process: None }
    }

    /// Starts it again on the same port.
    pub async fn restart(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.process = Some(process);
        let port = self.port;
        until("redis answers", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it is ours");
        process.wait().expect("it is ours");
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Sends a command that has to succeed.
    pub async fn ok(&self, arguments: &[&str]) {
        let answer = self.command(arguments).await;
        assert!(answer.starts_with("+OK"), "{arguments:?}: {answer}");
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// How edges reach it.
    pub fn settings(&self) -> RedisSettings {
        RedisSettings::single("127.0.0.1", self.port)
    }

    /// Sends a command and returns the raw answer, up to where it pauses.
    pub async fn command(&self, arguments: &[&str]) -> String {
        let arguments: Vec<&[u8]> = arguments.iter().map(|argument| argument.as_bytes()).collect();
        self.command_bytes(&arguments).await
    }

    /// Sends a command of any bytes.
    pub async fn command_bytes(&self, arguments: &[&[u8]]) -> String {
        let mut stream =
            within("redis", TcpStream::connect(("127.0.0.1", self.port))).await.expect("it runs");
        let mut command = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            command.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            command.extend_from_slice(argument);
            command.extend_from_slice(b"\r\n");
        }
        // The answer to this ends the answer to the other.
        command.extend_from_slice(b"*2\r\n$4\r\nECHO\r\n$8\r\n-=done=-\r\n");
        within("redis", stream.write_all(&command)).await.expect("it takes a command");
        let mut answer = Vec::new();
        let end = b"$8\r\n-=done=-\r\n";
        within("an answer of redis", async {
            while !answer.ends_with(end) {
                let count = stream.read_buf(&mut answer).await.expect("it answers");
                assert!(count > 0, "redis closed the connection");
            }
        })
        .await;
        answer.truncate(answer.len() - end.len());
        String::from_utf8(answer).expect("an answer is text")
    }

    /// Publishes an envelope, which may be any bytes; returns the number of receivers.
    pub async fn publish(&self, channel: &str, envelope: impl AsRef<[u8]>) -> u64 {
        let arguments = [&b"PUBLISH"[..], channel.as_bytes(), envelope.as_ref()];
        let answer = self.command_bytes(&arguments).await;
        answer.trim().trim_start_matches(':').parse().expect("a number of receivers")
    }

    /// The channels that anyone is subscribed to, sorted.
    pub async fn channels(&self) -> Vec<String> {
        let answer = self.command(&["PUBSUB", "CHANNELS"]).await;
        let mut channels: Vec<String> =
            answer.lines().filter(|line| line.contains("ws:")).map(str::to_owned).collect();
        channels.sort();
        channels
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}
