//! Mail to people, by the one server that the configuration names: a connection for each mail, a bounded number at a time.
//! At least once: a mail is done when the server has taken it, and one that is sent again has the same `Message-ID`.

use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use drover_types::ApiError;
use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands;
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::domain::Verdict;
use crate::turns::Turns;
use crate::webhook::read_secret;

/// Mails that are sent at a time.
const AT_ONCE: usize = 8;
/// Mails of one tenant that are sent at a time: a flood of one leaves room for others.
const PER_TENANT: usize = 2;
/// Longest wait for the server to take a mail, from connecting on.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait for the server to say goodbye, once it has taken it.
const GOODBYE: Duration = Duration::from_secs(2);
/// Most addresses of a channel.
const ADDRESSES_MAX: usize = 20;
/// Longest subject, in characters.
const SUBJECT_CHARS_MAX: usize = 120;
/// Tells programs that answer mail that nobody would read it (RFC 3834).
const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");
/// Answers that say nothing of the mail, whenever they come, but that Drover has not shown who it is (RFC 4954).
const NOT_AUTHENTICATED: [u16; 4] = [530, 534, 535, 538];

/// The server that takes mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmtpConfig {
    /// `HOST:PORT`.
    pub server: String,
    pub tls: SmtpTls,
    /// Who the mail is from: `drover@example.org` or `Drover <drover@example.org>`.
    pub from: String,
    /// Drover shows who it is by this name and the password.
    pub user: Option<String>,
    /// File of the password; read for each mail, so that a changed one counts at once.
    pub password_file: Option<PathBuf>,
    /// PEM file of certificate authorities that are trusted besides those of the web.
    pub ca: Option<PathBuf>,
}

/// How the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// By STARTTLS, which the server has to know; usually port 587.
    #[default]
    StartTls,
    /// From its beginning; usually port 465.
    Implicit,
    /// Not at all; for a server of this machine.
    Off,
}

impl SmtpConfig {
    /// Checks what can be checked without a look outside.
    pub fn check(&self) -> Result<(), ApiError> {
        self.host_and_port().map_err(|message| ApiError::invalid("rules.smtp.server", message))?;
        self.sender().map_err(|message| ApiError::invalid("rules.smtp.from", message))?;
        if self.user.is_some() != self.password_file.is_some() {
            return Err(ApiError::invalid("rules.smtp.user", "user and password_file go together"));
        }
        if self.user.is_some() && self.tls == SmtpTls::Off {
            return Err(ApiError::invalid("rules.smtp.tls", "a password is not sent without TLS"));
        }
        Ok(())
    }

    fn host_and_port(&self) -> Result<(String, u16), String> {
        let wrong = || format!("server is HOST:PORT, not {:?}", self.server);
        let (host, port) = self.server.rsplit_once(':').ok_or_else(wrong)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        match port.parse::<u16>() {
            Ok(port) if !host.is_empty() => Ok((host.to_owned(), port)),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }

    fn sender(&self) -> Result<Mailbox, String> {
        self.from.parse::<Mailbox>().map_err(|error| format!("{:?} is no address of mail: {error}", self.from))
    }
}

/// A mail to be sent. It is shown nowhere: its addresses are secrets.
pub struct Mail<'m> {
    pub tenant: &'m str,
    /// Separated by commas or line ends.
    pub addresses: &'m str,
    /// Its first line is the subject.
    pub text: &'m str,
    /// The same with every attempt; of letters and digits.
    pub id: &'m str,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// Sends mail.
pub struct Mailer {
    config: SmtpConfig,
    host: String,
    port: u16,
    sender: Mailbox,
    hello: ClientId,
    tls: TlsParameters,
    turns: Turns<String>,
    places: Semaphore,
}

impl Mailer {
    /// For a checked configuration.
    pub fn new(config: &SmtpConfig) -> anyhow::Result<Self> {
        let (host, port) = config.host_and_port().map_err(|message| anyhow!("rules.smtp.server: {message}"))?;
        let sender = config.sender().map_err(|message| anyhow!("rules.smtp.from: {message}"))?;
        let mut tls = TlsParameters::builder(host.clone());
        if let Some(path) = &config.ca {
            let pem = std::fs::read(path).with_context(|| format!("rules.smtp.ca: {}", path.display()))?;
            let authorities = Certificate::from_pem(&pem);
            tls = tls.add_root_certificate(authorities.with_context(|| format!("rules.smtp.ca: {}", path.display()))?);
        }
        let tls = tls.build().context("rules.smtp")?;
        let hello = ClientId::Domain(sender.email.domain().to_owned());
        let (config, turns, places) = (config.clone(), Turns::default(), Semaphore::new(AT_ONCE));
        Ok(Self { config, host, port, sender, hello, tls, turns, places })
    }

    /// Sends a mail; done when the server has taken it. The time it waits for its turn does not count.
    pub async fn send(&self, mail: &Mail<'_>) -> Verdict {
        let message = match self.message(mail) {
            Ok(message) => message,
            Err(reason) => return Verdict::Later(reason),
        };
        let of_tenant = self.turns.of(mail.tenant.to_owned(), PER_TENANT);
        // In this order: who waits for a place is bounded by tenant, so that none fills the queue.
        let (Ok(_of_tenant), Ok(_place)) = (of_tenant.acquire().await, self.places.acquire().await) else {
            return Verdict::Later("the client is closed".to_owned());
        };
        match timeout(TIMEOUT, self.deliver(&message)).await {
            Ok(Ok(mut connection)) => {
                self.say_goodbye(&mut connection).await;
                Verdict::Done
            }
            Ok(Err(verdict)) => verdict,
            Err(_) => Verdict::Later(format!("{} did not take the mail within {} s", self.host, TIMEOUT.as_secs())),
        }
    }

    fn message(&self, mail: &Mail<'_>) -> Result<Message, String> {
        let id = format!("<{}@{}>", mail.id, self.sender.email.domain());
        let mut message = Message::builder()
            .from(self.sender.clone())
            .subject(subject(mail.text))
            .message_id(Some(id))
            .date(UNIX_EPOCH + Duration::from_millis(mail.now_ms))
            .raw_header(HeaderValue::new(AUTO_SUBMITTED, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN);
        for address in addresses(mail.addresses)? {
            message = message.to(address);
        }
        message.body(body(mail.text)).map_err(|error| format!("mail: {error}"))
    }

    /// The connection, once its server has taken the message.
    async fn deliver(&self, message: &Message) -> Result<AsyncSmtpConnection, Verdict> {
        let told = |error: Error| Verdict::Later(self.told(&error));
        let server = (self.host.as_str(), self.port);
        let from_the_beginning = (self.config.tls == SmtpTls::Implicit).then(|| self.tls.clone());
        let connecting =
            AsyncSmtpConnection::connect_tokio1(server, Some(TIMEOUT), &self.hello, from_the_beginning, None);
        let mut connection = connecting.await.map_err(told)?;
        if self.config.tls == SmtpTls::StartTls {
            connection.starttls(self.tls.clone(), &self.hello).await.map_err(told)?;
        }
        if let Some(credentials) = self.credentials().await.map_err(Verdict::Later)? {
            connection.auth(DEFAULT_MECHANISMS, &credentials).await.map_err(told)?;
        }
        let handed = self.hand_over(&mut connection, message).await;
        if handed.is_err() {
            self.say_goodbye(&mut connection).await;
        }
        handed.map(|()| connection)
    }

    /// The message itself. What is refused before it names a recipient is not refused for what the mail is.
    async fn hand_over(&self, connection: &mut AsyncSmtpConnection, message: &Message) -> Result<(), Verdict> {
        let (envelope, text) = (message.envelope(), message.formatted());
        let mut options = Vec::new();
        let has_other_addresses =
            envelope.from().into_iter().chain(envelope.to()).any(|address| !AsRef::<str>::as_ref(address).is_ascii());
        for (is_needed, extension, option) in [
            (has_other_addresses, Extension::SmtpUtfEight, MailParameter::SmtpUtfEight),
            (!text.is_ascii(), Extension::EightBitMime, MailParameter::Body(MailBodyParameter::EightBitMime)),
        ] {
            if is_needed && !connection.server_info().supports_feature(extension) {
                return Err(Verdict::Later(format!("{} does not support {extension}", self.host)));
            }
            options.extend(is_needed.then_some(option));
        }
        let from = commands::Mail::new(envelope.from().cloned(), options);
        connection.command(from).await.map_err(|error| Verdict::Later(self.told(&error)))?;
        for address in envelope.to() {
            let to = commands::Rcpt::new(address.clone(), Vec::new());
            connection.command(to).await.map_err(|error| self.of_mail(&error))?;
        }
        connection.command(commands::Data).await.map_err(|error| self.of_mail(&error))?;
        connection.message(&text).await.map_err(|error| self.of_mail(&error))?;
        Ok(())
    }

    /// Whether it has the mail is known, whatever it says now.
    async fn say_goodbye(&self, connection: &mut AsyncSmtpConnection) {
        if timeout(GOODBYE, connection.abort()).await.is_err() {
            tracing::debug!(host = self.host, "the mail server does not say goodbye");
        }
    }

    async fn credentials(&self) -> Result<Option<Credentials>, String> {
        let (Some(user), Some(path)) = (&self.config.user, &self.config.password_file) else { return Ok(None) };
        let wrong = |reason: &str| format!("rules.smtp.password_file {reason}");
        let password = read_secret(path).await.map_err(|reason| wrong(&reason))?;
        let password = password.ok_or_else(|| wrong("does not exist"))?;
        Ok(Some(Credentials::new(user.clone(), password)))
    }

    /// What a failure means once the mail itself is asked about.
    fn of_mail(&self, error: &Error) -> Verdict {
        let is_of_mail = error.status().is_some_and(|code| !NOT_AUTHENTICATED.contains(&u16::from(code)));
        let is_refused = error.is_permanent() && is_of_mail;
        if is_refused { Verdict::Refused(self.told(error)) } else { Verdict::Later(self.told(error)) }
    }

    /// A failure in words. A server's own may repeat addresses: of an answer only the code is told.
    fn told(&self, error: &Error) -> String {
        let host = &self.host;
        match error.status() {
            Some(code) => format!("{host} answered {code}"),
            None if error.is_response() => format!("{host} gave an answer that is not SMTP"),
            None => format!("{host}: {error}"),
        }
    }
}

/// The addresses of a channel, as its secret has them.
fn addresses(list: &str) -> Result<Vec<Mailbox>, String> {
    let given: Vec<&str> = list.split([',', '\n']).map(str::trim).filter(|address| !address.is_empty()).collect();
    if given.is_empty() || given.len() > ADDRESSES_MAX {
        return Err(format!("channel has {} addresses, expected 1 to {ADDRESSES_MAX}", given.len()));
    }
    let mut parsed = Vec::with_capacity(given.len());
    for (address, number) in given.into_iter().zip(1..) {
        let found = address.parse::<Mailbox>().ok().filter(|_| address.matches('@').count() == 1);
        parsed.push(found.ok_or_else(|| format!("address {number} of the channel is none"))?);
    }
    Ok(parsed)
}

/// A text as the body of a mail, its lines ended by `\n`, of which the message makes `\r\n`. A `\r` that stands alone ends
/// a line for some servers only: with a dot behind it, one would see the end of the mail where another does not.
fn body(text: &str) -> String {
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    lines.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

/// The first line of a text, or its beginning and an ellipsis.
fn subject(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let mut subject: String = line.chars().filter(|c| !c.is_control()).take(SUBJECT_CHARS_MAX + 1).collect();
    if subject.chars().count() > SUBJECT_CHARS_MAX {
        subject = subject.chars().take(SUBJECT_CHARS_MAX - 1).chain(['…']).collect();
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SmtpConfig {
        let (server, from) = ("mail.example.org:587".to_owned(), "Drover <drover@example.org>".to_owned());
        SmtpConfig { server, from, ..SmtpConfig::default() }
    }

    #[test]
    fn what_is_wrong_with_the_server_is_named() {
        assert_eq!(config().check(), Ok(()));
        let user = (Some("u".to_owned()), Some(PathBuf::from("p")));
        let with_user = SmtpConfig { user: user.0.clone(), password_file: user.1.clone(), ..config() };
        assert_eq!(with_user.check(), Ok(()));
        for (wrong, field) in [
            (SmtpConfig { server: "mail.example.org".into(), ..config() }, "rules.smtp.server"),
            (SmtpConfig { server: ":25".into(), ..config() }, "rules.smtp.server"),
            (SmtpConfig { server: "a:b".into(), ..config() }, "rules.smtp.server"),
            (SmtpConfig { from: "nobody".into(), ..config() }, "rules.smtp.from"),
            (SmtpConfig { user: user.0, ..config() }, "rules.smtp.user"),
            (SmtpConfig { password_file: user.1, ..config() }, "rules.smtp.user"),
            (SmtpConfig { tls: SmtpTls::Off, ..with_user }, "rules.smtp.tls"),
        ] {
            let refused = wrong.check().expect_err(field);
            assert_eq!(refused.field.as_deref(), Some(field));
        }
        let six = SmtpConfig { server: "[::1]:25".into(), ..config() };
        assert_eq!(six.host_and_port(), Ok(("::1".to_owned(), 25)));
    }

    #[test]
    fn a_channel_has_a_bounded_number_of_addresses_and_each_is_one() {
        let many = |n: usize| vec!["a@example.org"; n].join(",");
        assert_eq!(addresses("a@example.org, B <b@example.org>\nc@example.org\n").map(|list| list.len()), Ok(3));
        assert_eq!(addresses(&many(ADDRESSES_MAX)).map(|list| list.len()), Ok(ADDRESSES_MAX));
        assert_eq!(addresses(&many(ADDRESSES_MAX + 1)), Err("channel has 21 addresses, expected 1 to 20".to_owned()));
        assert_eq!(addresses(" ,\n"), Err("channel has 0 addresses, expected 1 to 20".to_owned()));
        for wrong in ["a@example.org,secret", "a@example.org, b@example.org c@example.org"] {
            assert_eq!(addresses(wrong), Err("address 2 of the channel is none".to_owned()));
        }
    }

    #[test]
    fn a_subject_is_the_first_line_without_what_would_end_it() {
        assert_eq!(subject("  kitchen is hot\r\nBcc: x@example.org"), "kitchen is hot");
        assert_eq!(subject("a\u{0}b\rc"), "abc");
        assert_eq!(subject(&"ä".repeat(SUBJECT_CHARS_MAX)).chars().count(), SUBJECT_CHARS_MAX);
        let clipped = subject(&"ä".repeat(SUBJECT_CHARS_MAX + 1));
        assert!(clipped.chars().count() == SUBJECT_CHARS_MAX && clipped.ends_with("ä…"), "{clipped}");
    }

    #[test]
    fn a_mail_that_is_sent_again_has_the_same_id_and_is_marked_as_a_programs() {
        let mailer = Mailer::new(&config()).expect("sound");
        let text = "Küche: 31 °C\nsehr warm";
        let mail = Mail { tenant: "home", addresses: "a@example.org,b@example.org", text, id: "0af7", now_ms: 0 };
        let message = mailer.message(&mail).expect("a mail");
        let sent = String::from_utf8(message.formatted()).expect("text");
        for line in [
            "From: Drover <drover@example.org>\r\n",
            "To: a@example.org, b@example.org\r\n",
            "Message-ID: <0af7@example.org>\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n",
        ] {
            assert!(sent.contains(line), "{line} {sent}");
        }
        assert!(sent.is_ascii(), "{sent}");
        assert_eq!(message.envelope().to().len(), 2);
    }

    #[test]
    fn no_text_ends_its_mail_and_begins_another() {
        let mailer = Mailer::new(&config()).expect("sound");
        let text = "hot\r.\rMAIL FROM:<x@example.org>\r\n.\r\n\tvery\u{0} \u{1b}hot\n.\r";
        let mail = Mail { tenant: "home", addresses: "a@example.org", text, id: "0af7", now_ms: 0 };
        let sent = String::from_utf8(mailer.message(&mail).expect("a mail").formatted()).expect("text");
        let (_, body) = sent.split_once("\r\n\r\n").expect("headers and a body");
        let lines: Vec<&str> = body.trim_end().split("\r\n").collect();
        assert_eq!(lines, ["hot", ".", "MAIL FROM:<x@example.org>", ".", "\tvery hot", "."]);
        assert!(!sent.replace("\r\n", "").contains(['\r', '\n', '\u{0}', '\u{1b}']), "{sent:?}");
    }
}
