//! The commands of the binary, one file each, and what they share: arguments, failures, exit codes.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod emit;
pub(crate) mod logs;
pub(crate) mod papers;
mod publish;
pub(crate) mod serve;
pub(crate) mod tail;
pub(crate) mod token;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use hyper::http::uri::Authority;
use signal_server::config::{ConfigError, SETTINGS, Values};

/// `EX_USAGE` of sysexits: the configuration is not allowed.
const EXIT_USAGE: u8 = 64;

/// `EX_UNAVAILABLE`: something that is needed is away.
const EXIT_UNAVAILABLE: u8 = 69;

/// Why a command failed, and how the process ends.
#[derive(Debug)]
pub(crate) struct Failure {
    exit_code: u8,
    source: Box<dyn Error>,
}

// === impl Failure ===

impl Failure {
    /// The user asked for what cannot be.
    pub(crate) fn usage(source: impl Into<Box<dyn Error>>) -> Self {
        Self { exit_code: EXIT_USAGE, source: source.into() }
    }

    /// What is needed is not there.
    pub(crate) fn unavailable(source: impl Into<Box<dyn Error>>) -> Self {
        Self { exit_code: EXIT_UNAVAILABLE, source: source.into() }
    }

    /// Anything else.
    pub(crate) fn other(source: impl Into<Box<dyn Error>>) -> Self {
        Self { exit_code: 1, source: source.into() }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_code)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl fmt::Display for Failure {
    /// The error and what caused it, in one line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.source)?;
        let mut cause = self.source.source();
        while let Some(error) = cause {
            write!(formatter, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// The command line.
pub(crate) fn arguments() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let many = |argument: Arg| argument.action(ArgAction::Append);
    with_settings(Command::new("signal"), true)
        .about("Real-time updates to POS and Admin clients, over one Redis bus")
        .version(env!("CARGO_PKG_VERSION"))
        .args_conflicts_with_subcommands(true)
        .subcommand(with_settings(Command::new("serve"), false).about("Run an edge (the default)"))
        .subcommand(
            with_settings(Command::new("demo"), true)
                .about("Edge, web page and made-up traffic: no Redis, nothing to set up"),
        )
        .subcommand(
            with_settings(Command::new("emit"), true)
                .about("Publish one event, on Redis or through an edge")
                .arg(text("room", "ROOM", "to the members of a room"))
                .arg(text("user", "USER", "to all connections of a user"))
                .arg(text("client", "ID", "to one client"))
                .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("to everyone"))
                .group(
                    clap::ArgGroup::new("target")
                        .args(["room", "user", "client", "all"])
                        .required(true),
                )
                .arg(text("event", "EVENT", "the event").required(true))
                .arg(text("data", "JSON|@FILE|-", "the data: JSON, a file, or standard input"))
                .arg(many(text("exclude", "ID", "not to this client (may be repeated)")))
                .arg(text("via", "URL", "an edge's admin port, like http://127.0.0.1:3001"))
                .arg(text("key", "KEY", "the edge's API key, else SIGNAL_API_KEY")),
        )
        .subcommand(
            Command::new("tail")
                .about("Connect as a client and print what arrives")
                .arg(text("url", "URL", "the edge").default_value("ws://127.0.0.1:3000/ws"))
                .arg(text(
                    "ca-file",
                    "FILE",
                    "authorities to trust for wss, in PEM, else the system's",
                ))
                .arg(text("token", "TOKEN", "a JSON Web Token to log in with"))
                .arg(text("user", "USER", "a user id to log in with, for insecure-dev"))
                .arg(many(text("room", "ROOM", "a room to join (may be repeated)"))),
        )
        .subcommand(
            with_settings(Command::new("token"), true)
                .about("Mint a development token, signed with the first secret or a private key")
                .arg(text("user", "USER", "the user").required(true))
                .arg(text("key", "FILE", "a private key in PEM (PKCS #8), instead of a secret"))
                .arg(many(text("room", "PATTERN", "rooms it may join (may be repeated)")))
                .arg(text("expires", "DURATION", "its lifetime").default_value("1h")),
        )
        .subcommand(
            with_settings(Command::new("check"), true)
                .about("Validate the settings, reach Redis, print what is in effect"),
        )
        .subcommand(
            Command::new("completions")
                .about("Print a completion script for a shell")
                .arg(Arg::new("shell").required(true).value_parser(value_parser!(Shell))),
        )
        .subcommand(Command::new("man").about("Print the manual page, for man -l -"))
}

/// Parses the command line; `None` if it asked for help or the version, which is printed then.
pub(crate) fn parse() -> Result<Option<ArgMatches>, Failure> {
    match arguments().try_get_matches() {
        Ok(matches) => Ok(Some(matches)),
        Err(help) if !help.use_stderr() => {
            help.print().map_err(Failure::other)?;
            Ok(None)
        }
        Err(error) => Err(Failure::usage(sentence(&error))),
    }
}

/// What is wrong with the command line, without the usage that is printed below it by default.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let problem = text.split("\n\nUsage:").next().unwrap_or_default();
    let words: Vec<&str> = problem.trim_start_matches("error: ").split_whitespace().collect();
    words.join(" ")
}

/// Where to connect for a URL's authority: its host and port, 80 if there is none.
fn host_and_port(authority: &Authority) -> (&str, u16) {
    // An IPv6 address is in brackets there, but not here.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    (host, authority.port_u16().unwrap_or(80))
}

/// Adds a flag for each setting.
fn with_settings(command: Command, hide: bool) -> Command {
    let taken = ["token", "emit"].contains(&command.get_name());
    SETTINGS.iter().fold(command, |command, setting| {
        let flag = setting.flag();
        let default = match setting.default {
            "" => String::new(),
            default => format!(" [default: {default}]"),
        };
        let argument = Arg::new(setting.name)
            .long(flag)
            .alias(setting.name.to_ascii_lowercase().replace('_', "-"))
            .value_name("VALUE")
            .help(format!("{}{default} [env: {}]", setting.meaning, setting.name))
            .hide(hide || (taken && setting.secret));
        command.arg(argument)
    })
}

/// The environment's values, and those of flags over them.
pub(crate) fn values(arguments: &ArgMatches) -> Result<Values, ConfigError> {
    let mut values = Values::from_environment()?;
    for setting in SETTINGS {
        if let Ok(Some(value)) = arguments.try_get_one::<String>(setting.name) {
            values.set(setting.name, value.clone());
        }
    }
    Ok(values)
}
