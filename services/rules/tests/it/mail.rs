//! `notify` by mail: at least once, to people whose addresses are shown nowhere, and each by itself.

use std::time::Duration;

use drover_rules::{ERRORS_TOPIC, RulesConfig, SmtpConfig, SmtpTls};
use serde_json::json;
use tempfile::TempDir;

use crate::mail_server::{MailServer, Manner, Protection, USER};
use crate::target::{Manner as TargetManner, Target};
use crate::world::{Running, World, header, message, until};

/// A secret of tenant `home`.
fn secret(directory: &TempDir, name: &str, entry: &str, text: &str) {
    let secret = directory.path().join("secrets/home").join(name);
    std::fs::create_dir_all(&secret).expect("made");
    std::fs::write(secret.join(entry), text).expect("written");
}

fn smtp(server: &MailServer, tls: SmtpTls) -> SmtpConfig {
    SmtpConfig { server: server.server(), tls, from: "Drover <drover@example.org>".into(), ..SmtpConfig::default() }
}

fn start(world: &World, directory: &TempDir, smtp: Option<SmtpConfig>) -> Running {
    let (secrets, internal_hosts) = (Some(directory.path().join("secrets")), vec!["127.0.0.1".to_owned()]);
    let config = RulesConfig { member: "a".into(), partitions: 2, secrets, internal_hosts, ..RulesConfig::default() };
    world.start_with(RulesConfig { smtp, ..config })
}

/// The rule `tell` notifies the channel `ops`.
async fn tell(world: &World) {
    let notify = json!({"channel": "ops", "text": "${topic(2)} says ${n}\nBcc: all@example.org"});
    let rule = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"notify": notify}]});
    world.rule("tell", 1, Some(rule)).await;
}

/// What the status of `tell` says of its last failure, once it says `part`.
async fn told(world: &World, part: &str) -> String {
    let last = async || world.status("tell").await.ok()?.last_error.map(|error| error.message);
    until(part, async || last().await.is_some_and(|message| message.contains(part))).await;
    last().await.expect("it was there")
}

#[tokio::test]
async fn a_channel_with_addresses_gets_mail_and_they_are_nowhere_to_be_read() {
    let (world, directory) = World::embedded().await;
    let server = MailServer::start(Protection::None, Manner::Answers(451)).await;
    secret(&directory, "ops", "email", "ops@example.org\nNight <night@example.org>\n");
    tell(&world).await;
    let running = start(&world, &directory, Some(smtp(&server, SmtpTls::Off)));
    world.publish([message("d", 7, r#"{"n":7}"#)]).await;
    // The server's own words name the recipient.
    assert_eq!(told(&world, "451").await, "action 0 waits: localhost answered 451");
    server.becomes(Manner::Takes);
    until("taken", async || !server.received().is_empty()).await;
    let received = server.received();
    let mail = &received[0];
    assert_eq!((received.len(), mail.from.as_str()), (1, "drover@example.org"));
    assert_eq!(mail.to, ["ops@example.org", "night@example.org"]);
    let (headers, body) = mail.data.split_once("\r\n\r\n").expect("headers and a body");
    let id = message("d", 7, "").id.derived("tell", 0);
    for header in ["Subject: d says 7".to_owned(), format!("Message-ID: <{id}@example.org>")] {
        assert!(headers.lines().any(|line| line == header), "{header} {headers}");
    }
    assert!(!headers.contains("Bcc"), "a message adds no header: {headers}");
    assert_eq!(body.trim_end(), "d says 7\r\nBcc: all@example.org");
    until("counted", async || {
        world.status("tell").await.is_ok_and(|status| status.actions.iter().any(|action| action.delivered == 1))
    })
    .await;
    let status = format!("{:?}", world.status("tell").await);
    assert!(!status.contains("ops@example.org"), "{status}");
    running.stop().await;
}

#[tokio::test]
async fn a_password_goes_to_a_server_with_a_certificate_that_is_trusted_and_to_no_other() {
    for (protection, tls) in [(Protection::StartTls, SmtpTls::StartTls), (Protection::Implicit, SmtpTls::Implicit)] {
        let (world, directory) = World::embedded().await;
        let server = MailServer::start(protection, Manner::Takes).await;
        secret(&directory, "ops", "email", "ops@example.org");
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("password"), "wrong\n").expect("written");
        std::fs::write(file("ca.pem"), &server.ca).expect("written");
        let (user, password_file) = (Some(USER.0.to_owned()), Some(file("password")));
        let smtp = SmtpConfig { user, password_file, ..smtp(&server, tls) };
        tell(&world).await;
        world.publish([message("d", 1, r#"{"n":1}"#)]).await;
        let running = start(&world, &directory, Some(smtp.clone()));
        let untrusted = told(&world, "localhost").await;
        assert!(!untrusted.contains("answered"), "it was spoken to: {untrusted}");
        running.stop().await;
        let running = start(&world, &directory, Some(SmtpConfig { ca: Some(file("ca.pem")), ..smtp }));
        told(&world, "localhost answered 535").await;
        assert!(server.received().is_empty() && world.read(ERRORS_TOPIC).await.is_empty(), "it is tried again");
        std::fs::write(file("password"), USER.1).expect("written");
        until("taken", async || !server.received().is_empty()).await;
        let mail = server.received().remove(0);
        assert!(mail.is_encrypted && mail.is_known, "{mail:?}");
        running.stop().await;
    }
}

#[tokio::test]
async fn mail_to_a_server_without_starttls_is_not_sent_in_the_clear() {
    let (world, directory) = World::embedded().await;
    let server = MailServer::start(Protection::None, Manner::Takes).await;
    secret(&directory, "ops", "email", "ops@example.org");
    tell(&world).await;
    let running = start(&world, &directory, Some(smtp(&server, SmtpTls::StartTls)));
    world.publish([message("d", 1, r#"{"n":1}"#)]).await;
    told(&world, "STARTTLS is not supported").await;
    assert!(server.received().is_empty());
    running.stop().await;
}

#[tokio::test]
async fn a_mail_that_is_refused_for_good_is_a_dead_letter_and_one_without_a_server_waits() {
    let (world, directory) = World::embedded().await;
    let server = MailServer::start(Protection::None, Manner::Answers(550)).await;
    secret(&directory, "ops", "email", "ops@example.org");
    tell(&world).await;
    world.publish([message("d", 1, r#"{"n":1}"#)]).await;
    let running = start(&world, &directory, None);
    let waits = told(&world, "rules.smtp").await;
    assert_eq!(waits, "action 0 waits: ops has addresses of mail, and rules.smtp is not set");
    running.stop().await;
    let running = start(&world, &directory, Some(smtp(&server, SmtpTls::Off)));
    until("buried", async || world.read(ERRORS_TOPIC).await.len() == 1).await;
    assert_eq!(header(&world.read(ERRORS_TOPIC).await[0], "error"), "action 0: localhost answered 550");
    running.stop().await;
}

#[tokio::test]
async fn a_mail_whose_sender_is_refused_waits_until_the_server_is_set_right() {
    let (world, directory) = World::embedded().await;
    let server = MailServer::start(Protection::None, Manner::AnswersSender(550)).await;
    secret(&directory, "ops", "email", "ops@example.org");
    tell(&world).await;
    world.publish([message("d", 1, r#"{"n":1}"#)]).await;
    let running = start(&world, &directory, Some(smtp(&server, SmtpTls::Off)));
    assert_eq!(told(&world, "550").await, "action 0 waits: localhost answered 550");
    server.becomes(Manner::Takes);
    until("taken", async || !server.received().is_empty()).await;
    assert!(world.read(ERRORS_TOPIC).await.is_empty(), "no mail is refused for its sender");
    running.stop().await;
}

#[tokio::test]
async fn a_mail_that_was_taken_does_not_come_again_because_the_server_falls_silent() {
    let (world, directory) = World::embedded().await;
    let server = MailServer::start(Protection::None, Manner::TakesAndFallsSilent).await;
    secret(&directory, "ops", "email", "ops@example.org");
    tell(&world).await;
    let running = start(&world, &directory, Some(smtp(&server, SmtpTls::Off)));
    world.publish([message("d", 1, r#"{"n":1}"#)]).await;
    until("counted", async || {
        world.status("tell").await.is_ok_and(|status| status.actions.iter().any(|action| action.delivered == 1))
    })
    .await;
    assert_eq!(server.received().len(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_mail_server_that_hangs_delays_mail_and_no_other_action() {
    let (world, directory) = World::embedded().await;
    let server = MailServer::start(Protection::None, Manner::Hangs).await;
    let target = Target::start(TargetManner::Answers(200)).await;
    secret(&directory, "ops", "email", "ops@example.org");
    tell(&world).await;
    let hook = json!({"sql": "SELECT n FROM 'sensors/+'", "actions": [{"webhook": {"url": target.url()}}]});
    world.rule("hook", 1, Some(hook)).await;
    let running = start(&world, &directory, Some(smtp(&server, SmtpTls::Off)));
    let started = tokio::time::Instant::now();
    world.publish((0..40).map(|n| message(&format!("d{n}"), n, &format!("{{\"n\":{n}}}")))).await;
    until("the webhook has all", async || target.accepted().len() == 40).await;
    until("mail is under way", async || server.connections() == 2).await;
    assert!(started.elapsed() < Duration::from_secs(25), "somebody has waited for the mail server");
    assert_eq!((server.connections(), server.received().len()), (2, 0), "as many at a time as a tenant may");
    running.stop().await;
}
