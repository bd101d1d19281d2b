//! A server that speaks TLS only and asks for a password. Needs the feature `cassandra-tls`.

use std::time::Duration;

use drover_backends::cassandra::{self, Cassandra as Server};
use drover_backends::certificates::Certificates;
use drover_scylla_kit::{Credentials, OpenError, Options, Tls};

use crate::stage::{SCHEMA, options, process};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first thing that is told while it is waited for, or the refusal.
async fn told(options: &Options) -> String {
    let (tell, mut heard) = tokio::sync::mpsc::channel::<OpenError>(1);
    let cassandra = process(options);
    // What does not fit in is not the first.
    let opening = cassandra.open_when_there(&SCHEMA, |why| drop(tell.try_send(why.clone())));
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            opened = opening => opened.map(drop).expect_err("refused").to_string(),
            why = heard.recv() => why.expect("told").to_string(),
        }
    })
    .await
    .expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_a_password_works_and_what_does_not_fit_is_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let [ours, other] = ["ours", "other"].map(|name| {
        let place = directory.path().join(name);
        std::fs::create_dir(&place).expect("made");
        Certificates::make(&place).expect("certificates")
    });
    let server = cassandra::Options { passwords: true, tls: Some(ours.store.clone()), ..cassandra::Options::default() };
    let Some(server) = Server::start(server) else { return };
    let with = |authority: Option<&Certificates>, password: &str| Options {
        credentials: Some(Credentials { username: "cassandra".into(), password: password.into() }),
        tls: authority.map(|made| Tls { ca: made.authority.clone(), identity: None }),
        ..options(&server.address())
    };
    let opened = tokio::time::timeout(PATIENCE, async {
        process(&with(Some(&ours), "cassandra")).open_when_there(&SCHEMA, |why| eprintln!("waiting: {why}")).await
    });
    opened.await.expect("in time").expect("opens");

    for (case, options, word) in [
        ("wrong password", with(Some(&ours), "wrong"), "does not accept cassandra.username"),
        ("another authority", with(Some(&other), "cassandra"), "ertificate"),
        ("no tls", with(None, "cassandra"), "cannot be reached"),
    ] {
        let line = told(&options).await;
        println!("{case}: {line}");
        assert!(line.contains(word) && !line.contains('\n') && !line.contains("wrong"), "{case}: {line}");
    }
}
