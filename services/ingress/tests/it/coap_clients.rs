//! Clients of CoAP that others have written: libcoap's `coap-client` and Python's aiocoap.

use std::process::{Command, Output};

use drover_mqtt::Version;

use crate::coaps::{KEY, count};
use crate::http::TOKEN;
use crate::stage::Stage;

/// As Debian's package libcoap3-bin has it, without DTLS and with it.
const COAP_CLIENTS: [&str; 3] = ["coap-client-notls", "coap-client", "coap-client-openssl"];
/// Those with DTLS, over two libraries.
const DTLS_CLIENTS: [&str; 2] = ["coap-client-openssl", "coap-client-gnutls"];
/// Times that a client with a wrong key tries.
const TRIES: usize = 10;
/// With what aiocoap is asked to post, and to observe two messages in two and more blocks.
const AIOCOAP: &str = r#"
import asyncio, sys
import aiocoap
from aiocoap import Code, Message

async def main(server, token):
    context = await aiocoap.Context.create_client_context()
    def message(code, path, **options):
        message = Message(code=code, uri=f"{server}/{path}?token={token}", **options)
        return message
    large = bytes(range(32, 127)) * 50
    for payload in (b"21.5", large):
        answer = await context.request(message(Code.POST, "t/aiocoap/up", payload=payload)).response
        assert answer.code == Code.CHANGED, answer
    refused = await context.request(Message(code=Code.POST, uri=f"{server}/t/a?token=wrong", payload=b"x")).response
    assert refused.code == Code.UNAUTHORIZED, refused
    observing = context.request(message(Code.GET, "t/aiocoap/down", observe=0))
    first = await observing.response
    assert first.code == Code.CONTENT and first.opt.observe is not None, first
    print("observing", flush=True)
    seen = []
    async for notification in observing.observation:
        seen.append(notification.payload)
        if len(seen) == 2:
            break
    assert seen == [b"small", large], [len(payload) for payload in seen]
    print("done", flush=True)

asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2]), 60))
"#;

fn found(names: &[&'static str]) -> Option<&'static str> {
    let answers = |name: &&&str| Command::new(name).arg("-h").output().is_ok();
    names.iter().find(answers).copied()
}

fn coap_client(name: &'static str, arguments: Vec<String>) -> tokio::task::JoinHandle<Output> {
    tokio::task::spawn_blocking(move || Command::new(name).args(arguments).output().expect("it starts"))
}

fn arguments(of: &[&str]) -> Vec<String> {
    of.iter().map(|argument| (*argument).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn coap_client_publishes_durably_is_refused_and_observes() {
    let Some(client) = found(&COAP_CLIENTS) else {
        println!("NOT RUN: coap-client is not installed (package libcoap3-bin)");
        return;
    };
    let stage = Stage::new().await;
    stage.registry.credential(TOKEN, "d");
    let server = format!("coap://{}", stage.coap.expect("bound"));
    let option = format!("65003,{TOKEN}");
    let post = arguments(&["-m", "post", "-e", "21.5", "-O", &option, &format!("{server}/t/libcoap/up")]);
    let said = coap_client(client, post).await.expect("no panic");
    assert!(said.status.success(), "{said:?}");
    let body = "x".repeat(5_000);
    let query = format!("{server}/t/libcoap/up?token={TOKEN}");
    let blocks = arguments(&["-m", "post", "-b", "64", "-e", &body, &query]);
    assert!(coap_client(client, blocks).await.expect("no panic").status.success());
    assert_eq!(stage.payloads().await, ["21.5".to_owned(), body]);

    let refused = coap_client(client, arguments(&["-m", "post", "-e", "1", &format!("{server}/t/a?token=wrong")]));
    let refused = refused.await.expect("no panic");
    let words = [refused.stdout, refused.stderr].concat();
    assert!(String::from_utf8_lossy(&words).contains("4.01"), "{}", String::from_utf8_lossy(&words));
    assert_eq!(stage.payloads().await.len(), 2);

    let observing = coap_client(client, arguments(&["-s", "2", "-O", &option, &format!("{server}/t/libcoap/down")]));
    stage.metric("drover_ingress_coap_observers 1").await;
    let mut publisher = stage.connect(Version::V5, "p").await;
    publisher.publish(1, "libcoap/down", "to the device").await;
    publisher.expect_acks([1]).await;
    let observed = observing.await.expect("no panic");
    assert!(String::from_utf8_lossy(&observed.stdout).contains("to the device"), "{observed:?}");
    stage.metric("drover_ingress_coap_observers 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn coap_client_with_its_key_publishes_durably_over_dtls_and_with_another_it_is_refused() {
    let clients: Vec<&'static str> = DTLS_CLIENTS.into_iter().filter(|name| found(&[*name]).is_some()).collect();
    if clients.is_empty() {
        println!("NOT RUN: no coap-client with DTLS is installed (package libcoap3-bin)");
    }
    for client in clients {
        let stage = Stage::new().await;
        stage.registry.key("d", KEY);
        let url = format!("coaps://{}/t/libcoap/up", stage.coaps.expect("bound"));
        let with = |key: &str, what: &[&str]| arguments(&[["-u", "d", "-k", key].as_slice(), what].concat());
        let said = coap_client(client, with(KEY, &["-m", "post", "-e", "21.5", &url])).await.expect("no panic");
        assert!(said.status.success(), "{client}: {said:?}");
        let body = "x".repeat(5_000);
        let blocks = with(KEY, &["-m", "post", "-b", "64", "-e", &body, &url]);
        assert!(coap_client(client, blocks).await.expect("no panic").status.success(), "{client}");
        assert_eq!(stage.payloads().await, ["21.5".to_owned(), body], "{client}");

        // A client that is patient for 3 s only may give up on a busy machine before it has shown its key.
        for _ in 0..TRIES {
            let wrong = with("another key", &["-B", "3", "-m", "post", "-e", "wrong", &url]);
            coap_client(client, wrong).await.expect("no panic");
            if count(&stage, "refused") > 0 {
                break;
            }
        }
        assert!(count(&stage, "refused") > 0, "{client}");
        assert_eq!(stage.payloads().await.len(), 2, "{client}");

        let down = url.replace("/up", "/down");
        let observing = coap_client(client, with(KEY, &["-s", "2", &down]));
        stage.metric("drover_ingress_coap_observers 1").await;
        let mut publisher = stage.connect(Version::V5, "p").await;
        publisher.publish(1, "libcoap/down", "to the device").await;
        publisher.expect_acks([1]).await;
        let observed = observing.await.expect("no panic");
        assert!(String::from_utf8_lossy(&observed.stdout).contains("to the device"), "{client}: {observed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aiocoap_publishes_durably_is_refused_and_observes() {
    let python = std::env::var("DROVER_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let has = Command::new(&python).args(["-c", "import aiocoap"]).output().is_ok_and(|said| said.status.success());
    if !has {
        println!("NOT RUN: aiocoap is not installed");
        return;
    }
    let stage = Stage::new().await;
    stage.registry.credential(TOKEN, "d");
    let server = format!("coap://{}", stage.coap.expect("bound"));
    let program = tokio::task::spawn_blocking(move || {
        Command::new(python).args(["-c", AIOCOAP, &server, TOKEN]).output().expect("it starts")
    });
    stage.metric("drover_ingress_coap_observers 1").await;
    let large: String = (32..127_u8).map(char::from).collect::<String>().repeat(50);
    let mut publisher = stage.connect(Version::V5, "p").await;
    publisher.publish(1, "aiocoap/down", "small").await;
    publisher.publish(2, "aiocoap/down", &large).await;
    publisher.expect_acks([1, 2]).await;
    let said = program.await.expect("no panic");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.contains("done"), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(stage.payloads().await, ["21.5", &large, "small", &large]);
}
