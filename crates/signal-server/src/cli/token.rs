//! `signal token`: a development token.

use std::io::Write as _;

use clap::ArgMatches;
use signal_server::Config;
use signal_server::auth::RoomPattern;
use signal_server::auth::jwt::{TokenClaims, expiry, mint, mint_with_key};
use signal_server::config::{Auth, Values};

use super::Failure;

pub(crate) fn run(arguments: &ArgMatches, values: &Values) -> Result<(), Failure> {
    let Auth::Jwt(jwt) = Config::from_values(values)?.auth else {
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
        iss: jwt.issuer,
        aud: jwt.audience,
    };
    let token = if let Some(path) = arguments.get_one::<String>("key") {
        let pem = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--key names {path:?}: {error}")))?;
        mint_with_key(&pem, &claims).map_err(|error| {
            Failure::usage(format!("--key names {path:?}, which is no private key: {error}"))
        })?
    } else if let Some(secret) = jwt.keys.signing_secret()? {
        mint(&secret, &claims).map_err(Failure::other)?
    } else {
        return Err(Failure::usage("the keys are public ones, so --key has to name a private one"));
    };
    writeln!(std::io::stdout(), "{token}").map_err(Failure::other)
}
