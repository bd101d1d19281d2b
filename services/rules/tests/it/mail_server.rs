//! A server that mail is sent to: it speaks SMTP (RFC 5321) with STARTTLS and AUTH PLAIN, remembers what came, and takes,
//! refuses or hangs as it is told.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufStream};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Whom it lets in: name and password.
pub const USER: (&str, &str) = ("drover", "sesame");

/// What it does with a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Takes,
    /// Takes it, and does not answer afterwards.
    TakesAndFallsSilent,
    /// Answers so to each recipient.
    Answers(u16),
    /// Answers so to each sender.
    AnswersSender(u16),
    /// Never says whether it has it.
    Hangs,
}

/// How connections to it are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    StartTls,
    Implicit,
}

/// A mail that it has taken.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub from: String,
    pub to: Vec<String>,
    /// Headers and body, lines ended by `\r\n`.
    pub data: String,
    pub is_encrypted: bool,
    /// Somebody has shown who it is.
    pub is_known: bool,
}

#[derive(Clone)]
pub struct MailServer {
    pub address: SocketAddr,
    /// The authority that vouches for it, as PEM.
    pub ca: String,
    protection: Protection,
    acceptor: TlsAcceptor,
    manner: Arc<Mutex<Manner>>,
    received: Arc<Mutex<Vec<Received>>>,
    /// Connections so far.
    connections: Arc<AtomicUsize>,
}

impl MailServer {
    pub async fn start(protection: Protection, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (acceptor, ca) = certified();
        let server = Self {
            address: listener.local_addr().expect("an address"),
            ca,
            protection,
            acceptor,
            manner: Arc::new(Mutex::new(manner)),
            received: Arc::default(),
            connections: Arc::default(),
        };
        let served = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::Relaxed);
                let server = served.clone();
                // Connections end as the client likes.
                tokio::spawn(async move { drop(server.serve(stream).await) });
            }
        });
        server
    }

    /// As the client is told of it: by a name that the certificate has.
    pub fn server(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    pub fn becomes(&self, manner: Manner) {
        *self.manner.lock().expect("not poisoned") = manner;
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().expect("not poisoned").clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn manner(&self) -> Manner {
        *self.manner.lock().expect("not poisoned")
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<()> {
        if self.protection == Protection::Implicit {
            let stream = self.acceptor.accept(stream).await?;
            return self.converse(stream, true, true).await.map(|_| ());
        }
        if let Some(stream) = self.converse(stream, false, true).await? {
            let stream = self.acceptor.accept(stream).await?;
            self.converse(stream, true, false).await?;
        }
        Ok(())
    }

    /// Until the client says goodbye, or wants TLS: then the stream goes on with that.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        is_encrypted: bool,
        greets: bool,
    ) -> io::Result<Option<S>> {
        let mut stream = BufStream::new(stream);
        if greets {
            say(&mut stream, "220 localhost ESMTP").await?;
        }
        let mut mail = Received { is_encrypted, ..Received::default() };
        loop {
            let line = hear(&mut stream).await?;
            let (verb, rest) = line.split_once(' ').unwrap_or((line.as_str(), ""));
            match verb {
                "EHLO" => {
                    let tls =
                        if self.protection == Protection::StartTls && !is_encrypted { "250-STARTTLS\r\n" } else { "" };
                    let auth = if is_encrypted { "250-AUTH PLAIN\r\n" } else { "" };
                    say(&mut stream, &format!("250-localhost\r\n{tls}{auth}250 8BITMIME")).await?;
                }
                "STARTTLS" => {
                    say(&mut stream, "220 go on").await?;
                    return Ok(Some(stream.into_inner()));
                }
                "AUTH" => {
                    let shown = rest.strip_prefix("PLAIN ").and_then(|shown| STANDARD.decode(shown).ok());
                    mail.is_known = shown == Some(format!("\0{}\0{}", USER.0, USER.1).into_bytes());
                    say(&mut stream, if mail.is_known { "235 come in" } else { "535 who are you" }).await?;
                }
                "MAIL" => {
                    mail.from = address(rest);
                    let from = address(rest);
                    match self.manner() {
                        Manner::AnswersSender(code) => say(&mut stream, &format!("{code} not <{from}>")).await?,
                        Manner::Takes | Manner::TakesAndFallsSilent | Manner::Answers(_) | Manner::Hangs => {
                            say(&mut stream, "250 so far").await?;
                        }
                    }
                }
                "RCPT" => {
                    mail.to.push(address(rest));
                    let to = address(rest);
                    match self.manner() {
                        Manner::Answers(code) => say(&mut stream, &format!("{code} not <{to}>")).await?,
                        Manner::Takes | Manner::TakesAndFallsSilent | Manner::AnswersSender(_) | Manner::Hangs => {
                            say(&mut stream, "250 so far").await?;
                        }
                    }
                }
                "DATA" => {
                    say(&mut stream, "354 go on").await?;
                    loop {
                        let line = hear(&mut stream).await?;
                        if line == "." {
                            break;
                        }
                        // A dot in front was doubled.
                        mail.data.push_str(line.strip_prefix('.').unwrap_or(&line));
                        mail.data.push_str("\r\n");
                    }
                    if self.manner() == Manner::Hangs {
                        return std::future::pending().await;
                    }
                    self.received.lock().expect("not poisoned").push(mail.clone());
                    say(&mut stream, "250 taken").await?;
                    if self.manner() == Manner::TakesAndFallsSilent {
                        return std::future::pending().await;
                    }
                }
                "QUIT" => {
                    say(&mut stream, "221 goodbye").await?;
                    return Ok(None);
                }
                _ => say(&mut stream, "500 what").await?,
            }
        }
    }
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, answer: &str) -> io::Result<()> {
    stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// A line, without its end.
async fn hear<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufStream<S>) -> io::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// What stands in `<…>`.
fn address(text: &str) -> String {
    text.split(['<', '>']).nth(1).unwrap_or_default().to_owned()
}

/// A certificate for `localhost`, and the authority that has issued it.
fn certified() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &ca).expect("a certificate");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("supported")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a pair");
    (TlsAcceptor::from(Arc::new(config)), ca.pem())
}
