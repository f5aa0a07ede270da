//! Child processes pinned to a core, and what the kernel says they used.
//!
//! Owns the children: each is killed, by its own handle, when its [`Process`] is dropped. Never
//! touches a process that it did not start. Start-up is bounded by `START_PATIENCE`.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit};

use crate::clock::Clock;

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

    fn spawn(name: &'static str, command: &mut Command) -> Result<Self, ProcessError> {
        let child =
            command.spawn().map_err(|source| ProcessError::Start { program: name, source })?;
        Ok(Self { name, child })
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

    /// Waits until it says a line; it was started with [`Process::start_speaking`].
    pub fn await_line(&mut self) -> Result<String, ProcessError> {
        let output = self.child.stdout.take().ok_or(ProcessError::Deaf(self.name))?;
        let mut line = String::new();
        io::BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() { Err(ProcessError::Ended(self.name)) } else { Ok(line) }
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
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cores).arg(program).args(arguments);
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
    let port_text = port.to_string();
    let arguments =
        ["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
    let arguments = arguments.map(str::to_owned);
    let program = OsStr::new("redis-server");
    let mut redis = Process::start("redis-server", &core.to_string(), program, &arguments, &[])?;
    redis.await_port(port)?;
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(START_PATIENCE))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG\r\n" { Ok(redis) } else { Err(ProcessError::Deaf("redis-server")) }
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
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    value.ok_or_else(|| io::Error::other("no VmRSS in status"))
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
    fn this_process_uses_memory_and_time() {
        assert!(resident_kib(std::process::id()).unwrap() > 0);
        assert!(own_cpu().unwrap().used_seconds >= 0.0);
    }
}
