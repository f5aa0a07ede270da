//! The binary `signal` as a process of a test.

use std::net::SocketAddr;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::within;

/// The binary, with these variables and no others.
pub fn signal(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signal"));
    command
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    within("the end", signal(arguments, variables).output()).await.expect("it runs")
}

/// Runs what has to fail; returns how it ended and the one sentence it said.
pub async fn failure(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = run(arguments, variables).await;
    assert!(output.stdout.is_empty(), "it failed, and printed a result");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said.matches('\n').count(), 1, "one line: {said}");
    let sentence = said.trim_end().strip_prefix("signal: ").expect("the program's name");
    (output.status.code().expect("an exit code"), sentence.to_owned())
}

/// Runs what has to work; returns what it printed.
pub async fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = run(arguments, variables).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""), "{arguments:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A running `signal`, and its lines.
#[derive(Debug)]
pub struct Process {
    pub child: Child,
    pub out: Lines<BufReader<ChildStdout>>,
    pub logs: Lines<BufReader<ChildStderr>>,
}

// === impl Process ===

impl Process {
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = signal(arguments, variables).spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let logs = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        Self { child, out, logs }
    }

    /// The next line on standard output.
    pub async fn line(&mut self) -> Option<String> {
        within("a line", self.out.next_line()).await.expect("text")
    }

    /// The fields of the next log line with this message.
    pub async fn logged(&mut self, message: &str) -> Value {
        loop {
            let line = within(message, self.logs.next_line()).await.expect("text");
            let line = line.unwrap_or_else(|| panic!("it ended without saying {message:?}"));
            let mut line: Value = serde_json::from_str(&line).expect("a log line is JSON");
            if line["fields"]["message"] == message {
                return line["fields"].take();
            }
        }
    }

    /// Waits until it listens; returns where.
    pub async fn listening(&mut self) -> SocketAddr {
        let fields = self.logged("listening").await;
        fields["address"].as_str().expect("an address").parse().expect("an address")
    }

    pub async fn kill(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let killed = Command::new("kill").args([name, &id]).status().await;
        assert!(killed.expect("kill runs").success());
    }

    pub async fn exit_code(&mut self) -> Option<i32> {
        within("the end", self.child.wait()).await.expect("it ends").code()
    }
}
