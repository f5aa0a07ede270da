//! Child processes pinned to a core, and what the kernel says they used.
//!
//! Owns the children: each is killed, by its own handle, when its [`Process`] is dropped, and by the
//! kernel if this process is killed before it could. Never touches a process that it did not start.
//! Start-up is bounded by `START_PATIENCE`.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use crate::clock::Clock;
use crate::resp;

/// The longest that a child may take to accept connections.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Between two attempts to reach a child that is starting.
const START_RETRY: Duration = Duration::from_millis(20);

/// Kernel ticks per second in `/proc/PID/stat`: `USER_HZ`, the same on every Linux this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Why a process could not be started or read.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// What was to be started.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It ended before it accepted a connection.
    #[error("{0} ended before it accepted a connection")]
    Ended(&'static str),
    /// It accepts no connection.
    #[error("{0} does not accept connections")]
    Deaf(&'static str),
    /// The kernel's record of it cannot be read.
    #[error("cannot read the usage of {program}: {source}")]
    Usage {
        /// Whose usage.
        program: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refused something.
    #[error("system: {0}")]
    System(#[from] io::Error),
}

/// What a process has had of its core so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// Seconds that it ran, user and system.
    pub used_seconds: f64,
    /// Seconds that it was ready to run while something else did.
    pub waited_seconds: f64,
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    /// What it says, if it was started to be listened to.
    output: Option<io::BufReader<ChildStdout>>,
}

// === impl Process ===

impl Process {
    /// Starts `program` on some cores, as `taskset` lists them, with `settings` as its only `SIGNAL_*`
    /// and `APP_ENV_*` variables.
    pub fn start(
        name: &'static str,
        cores: &str,
        program: &OsStr,
        arguments: &[String],
        settings: &[(&str, String)],
    ) -> Result<Self, ProcessError> {
        let mut command = command(cores, program, arguments, settings);
        command.stdout(Stdio::null());
        Self::spawn(name, &mut command)
    }

    /// The same, for a program whose output is read with [`Process::await_line`].
    pub fn start_speaking(
        name: &'static str,
        cores: &str,
        program: &OsStr,
        arguments: &[String],
        settings: &[(&str, String)],
    ) -> Result<Self, ProcessError> {
        let mut command = command(cores, program, arguments, settings);
        command.stdout(Stdio::piped());
        Self::spawn(name, &mut command)
    }

    /// The same, for a program that is also told lines with [`Process::tell`].
    pub fn start_conversing(
        name: &'static str,
        cores: &str,
        program: &OsStr,
        arguments: &[String],
    ) -> Result<Self, ProcessError> {
        let mut command = command(cores, program, arguments, &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self::spawn(name, &mut command)
    }

    fn spawn(name: &'static str, command: &mut Command) -> Result<Self, ProcessError> {
        let mut child =
            command.spawn().map_err(|source| ProcessError::Start { program: name, source })?;
        let output = child.stdout.take().map(io::BufReader::new);
        Ok(Self { name, child, output })
    }

    /// Waits until it accepts connections on `port`.
    pub fn await_port(&mut self, port: u16) -> Result<(), ProcessError> {
        let clock = Clock::start();
        while clock.elapsed() < START_PATIENCE {
            if self.child.try_wait()?.is_some() {
                return Err(ProcessError::Ended(self.name));
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(START_RETRY);
        }
        Err(ProcessError::Deaf(self.name))
    }

    /// What all its threads have used so far.
    pub fn cpu(&self) -> Result<Cpu, ProcessError> {
        cpu(self.child.id()).map_err(|source| ProcessError::Usage { program: self.name, source })
    }

    /// Waits until it says a line; it was started with [`Process::start_speaking`] or
    /// [`Process::start_conversing`].
    pub fn await_line(&mut self) -> Result<String, ProcessError> {
        let output = self.output.as_mut().ok_or(ProcessError::Deaf(self.name))?;
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.is_empty() { Err(ProcessError::Ended(self.name)) } else { Ok(line) }
    }

    /// Tells it a line; it was started with [`Process::start_conversing`].
    pub fn tell(&mut self, line: &str) -> Result<(), ProcessError> {
        let input = self.child.stdin.as_mut().ok_or(ProcessError::Deaf(self.name))?;
        Ok(writeln!(input, "{line}")?)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> Result<u64, ProcessError> {
        resident_kib(self.child.id())
            .map_err(|source| ProcessError::Usage { program: self.name, source })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(
    cores: &str,
    program: &OsStr,
    arguments: &[String],
    settings: &[(&str, String)],
) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c"]);
    command.arg(cores).arg(program).args(arguments);
    for (variable, _) in std::env::vars_os() {
        let text = variable.to_string_lossy();
        if text.starts_with("SIGNAL_") || text.starts_with("APP_ENV_") {
            command.env_remove(&variable);
        }
    }
    command.envs(settings.iter().map(|(variable, value)| (variable, value)));
    command.stdin(Stdio::null());
    command
}

/// Starts a Redis that keeps nothing, on one core; waits until it answers.
pub fn start_redis(core: usize, port: u16) -> Result<Process, ProcessError> {
    start_redis_with(&core.to_string(), port, &[])
}

/// The same on some cores, with further arguments.
pub fn start_redis_with(cores: &str, port: u16, further: &[&str]) -> Result<Process, ProcessError> {
    let port_text = port.to_string();
    let arguments =
        ["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let arguments: Vec<String> =
        arguments.iter().chain(further).map(|part| (*part).to_owned()).collect();
    let program = OsStr::new("redis-server");
    let mut redis = Process::start("redis-server", cores, program, &arguments, &[])?;
    redis.await_port(port)?;
    match ask_redis(port, &["PING"])?.as_str() {
        "PONG" => Ok(redis),
        _ => Err(ProcessError::Deaf("redis-server")),
    }
}

/// Asks a Redis something that has one line or one text as its answer.
pub fn ask_redis(port: u16, command: &[&str]) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(START_PATIENCE))?;
    let mut request = Vec::new();
    resp::write_command(&mut request, command.iter().map(|part| part.as_bytes()));
    stream.write_all(&request)?;
    resp::read_answer(&mut io::BufReader::new(stream))
}

/// Asks an edge for a page of its admin port.
pub fn fetch(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(START_PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    match response.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("{path} was answered {response:?}"))),
    }
}

/// Memory of the kernel's own objects, sockets among them, in KiB.
pub fn kernel_kib() -> io::Result<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    kib_of(&memory, "Slab:").ok_or_else(|| io::Error::other("no Slab in meminfo"))
}

/// What this process has used so far.
pub fn own_cpu() -> io::Result<Cpu> {
    cpu(std::process::id())
}

/// Keeps this thread, and what it starts, on one core.
pub fn pin_to(core: usize) -> io::Result<()> {
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &cores)?)
}

/// Lifts the open-file limit as far as it goes without privilege; returns it.
pub fn lift_file_limit() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let lifted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, lifted)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// A port that nothing listens on.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The scheduler's nanoseconds of each thread, or the process's ticks of 10 ms where that is more:
/// it is if a thread has ended meanwhile.
fn cpu(pid: u32) -> io::Result<Cpu> {
    let mut used = Duration::ZERO;
    let mut waited = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(text) = std::fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let mut fields = text.split(' ').map(|field| field.parse().unwrap_or(0));
        used += Duration::from_nanos(fields.next().unwrap_or(0));
        waited += Duration::from_nanos(fields.next().unwrap_or(0));
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = process_ticks(&stat).ok_or_else(|| io::Error::other("malformed stat"))?;
    let used_seconds = used.as_secs_f64().max(f64::from(ticks) / TICKS_PER_SECOND);
    Ok(Cpu { used_seconds, waited_seconds: waited.as_secs_f64() })
}

/// `utime + stime`, fields 14 and 15 of `/proc/PID/stat`. The second field is a name that may
/// hold anything, so counting starts after its last parenthesis, at field 3.
fn process_ticks(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(14 - 3);
    let user: u32 = fields.next()?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn resident_kib(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    kib_of(&status, "VmRSS:").ok_or_else(|| io::Error::other("no VmRSS in status"))
}

/// A line of a file of the kernel's with a name, a number and `kB`.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_past_any_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0";
        assert_eq!(process_ticks(stat), Some(175));
        assert_eq!(process_ticks("12 (a) S 1 2"), None);
    }

    #[test]
    fn a_line_of_the_kernel_is_found_by_its_name() {
        assert_eq!(kib_of("MemTotal: 9 kB\nSlab:   12 kB\n", "Slab:"), Some(12));
        assert_eq!(kib_of("Slab: 12", "Slab:"), None);
        assert!(kernel_kib().unwrap() > 0);
    }

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(resident_kib(std::process::id()).unwrap() > 0);
        assert!(own_cpu().unwrap().used_seconds >= 0.0);
    }
}
