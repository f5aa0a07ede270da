//! TLS to Redis: whom an emitter trusts.

#![allow(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails at a surprise, runs once"
)]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use signal_emitter::{
    Emitter, EmitterError,
    redis::{RedisSettings, TlsSettings},
};

use support::{Redis, bounded, emitter_config, free_port};

/// A folder that goes with this value, with a certificate for `localhost` and the authority behind it.
struct Certificates(PathBuf);

impl Certificates {
    fn make() -> Self {
        let name = format!("signal-tls-{}-{}", std::process::id(), free_port());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch";
        for command in [
            format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"),
            format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem \
             -days 2 -extfile names"
                .to_owned(),
        ] {
            let made = Command::new("openssl")
                .args(command.split(' '))
                .current_dir(&folder)
                .output()
                .expect("openssl is installed");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(host: &str, port: u16, ca_file: Option<&Path>) -> RedisSettings {
    let ca_file = ca_file.map(Path::to_owned);
    RedisSettings { tls: Some(TlsSettings { ca_file }), ..RedisSettings::single(host, port) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emitter_trusts_its_authority_and_nobody_else() {
    let made = Certificates::make();
    let file = |name: &str| made.file(name).to_str().unwrap().to_owned();
    let tls_port = free_port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let mut subscriber = redis.subscriber("ws:broadcast");
    let ca = made.file("ca.pem");
    let config = emitter_config(settings("localhost", tls_port, Some(&ca)));
    let emitter = bounded(Emitter::connect(config)).await.unwrap();
    emitter.broadcast().event("e").send().await.unwrap();
    subscriber.message();

    let other = Certificates::make();
    let other_ca = other.file("ca.pem");
    for (why, settings) in [
        ("another name", settings("127.0.0.1", tls_port, Some(&ca))),
        ("another authority", settings("localhost", tls_port, Some(&other_ca))),
        ("the system's authorities", settings("localhost", tls_port, None)),
        ("no TLS on this port", settings("localhost", redis.port, Some(&ca))),
    ] {
        let mut config = emitter_config(settings);
        config.timeout = Duration::from_millis(500);
        let error = bounded(Emitter::connect(config)).await.unwrap_err();
        let is_refused =
            matches!(error, EmitterError::Connect { .. } | EmitterError::Certificates { .. });
        assert!(is_refused, "{why}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_certificates_is_said() {
    for name in ["Cargo.toml", "no-such-file"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let config = emitter_config(settings("localhost", 1, Some(&path)));
        let error = Emitter::connect(config).await.unwrap_err();
        let expected = format!("cannot load the certificates to trust from {}", path.display());
        assert_eq!(error.to_string(), expected);
    }
}
