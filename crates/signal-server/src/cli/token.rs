//! `signal token`: a development token.

use std::io::Write as _;

use clap::ArgMatches;
use signal_server::Config;
use signal_server::auth::RoomPattern;
use signal_server::auth::jwt::{TokenClaims, expiry, mint};
use signal_server::config::{Auth, Values};

use super::Failure;

pub(crate) fn run(arguments: &ArgMatches, values: &Values) -> Result<(), Failure> {
    let Auth::Jwt { secret, issuer, audience } = Config::from_values(values)?.auth else {
        return Err(Failure::usage("SIGNAL_AUTH is not jwt, so no token is needed"));
    };
    let text = |name: &str| arguments.get_one::<String>(name).expect("it is required");
    let lifetime = humantime::parse_duration(text("expires"))
        .map_err(|_| Failure::usage("--expires takes a duration, like 1h or 30m"))?;
    let rooms: Vec<String> =
        arguments.get_many::<String>("room").into_iter().flatten().cloned().collect();
    for room in &rooms {
        room.parse::<RoomPattern>().map_err(Failure::usage)?;
    }
    let claims = TokenClaims {
        sub: text("user").clone(),
        exp: expiry(lifetime),
        rooms,
        iss: issuer,
        aud: audience,
    };
    let token = mint(&secret, &claims).map_err(Failure::other)?;
    writeln!(std::io::stdout(), "{token}").map_err(Failure::other)
}
