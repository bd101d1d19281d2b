//! A device over MQTT 5, on a socket that blocks.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use drover_mqtt::client::{Client, ClientOptions, Event};
use drover_mqtt::{Publish, ReasonCode, Subscription, SubscriptionList, SubscriptionOptions, Version};
use drover_types::Qos;

use crate::platform::Platform;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a session that is to be kept outlives its connection, seconds.
const KEPT_S: u32 = 3_600;

/// A connected device of the tenant `default`. It has no keep-alive, so its clock stands still.
pub struct Device {
    stream: TcpStream,
    client: Client,
    read: Vec<u8>,
    /// Topics and payloads that came while something else was waited for.
    came: VecDeque<(String, String)>,
}

impl Device {
    /// Connects with a token.
    pub fn connect(platform: &Platform, name: &str, token: &str) -> Self {
        Self::with(platform, name, token, ClientOptions::new(Version::V5, name))
    }

    /// Connects with a token to a session that outlives the connection.
    pub fn connect_to_kept(platform: &Platform, name: &str, token: &str) -> Self {
        let options = ClientOptions::new(Version::V5, name);
        Self::with(platform, name, token, ClientOptions { clean_start: false, session_expiry_s: KEPT_S, ..options })
    }

    fn with(platform: &Platform, name: &str, token: &str, options: ClientOptions) -> Self {
        let (user_name, password) = (Some(name.to_owned()), Some(token.as_bytes().to_vec()));
        let options = ClientOptions { user_name, password, ..options };
        let stream = TcpStream::connect(("127.0.0.1", 1883 + platform.up.offset)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("more than nothing");
        let mut device = Self { stream, client: Client::new(options), read: Vec::new(), came: VecDeque::new() };
        let mut out = Vec::new();
        device.client.open(0, &mut out).expect("it fits");
        device.answer(out, |event| matches!(event, Event::Connected { .. }).then_some(()));
        device
    }

    /// The answer to a message at QoS 1.
    pub fn publish(&mut self, topic: &str, payload: &str) -> ReasonCode {
        let message = Publish { qos: Qos::AtLeastOnce, ..Publish::new(topic, payload.as_bytes()) };
        let mut out = Vec::new();
        self.client.publish(&message, 0, &mut out).expect("connected, and nothing is in flight");
        self.answer(out, |event| if let Event::Acknowledged { reason, .. } = event { Some(*reason) } else { None })
    }

    /// Subscribes at QoS 1.
    pub fn subscribe(&mut self, filter: &str) {
        let (mut list, mut out) = (SubscriptionList::default(), Vec::new());
        let options = SubscriptionOptions::new(Qos::AtLeastOnce);
        list.push(Subscription { filter, options }).expect("short");
        self.client.subscribe(list.as_subscriptions(), 0, &mut out).expect("connected");
        self.answer(out, |event| matches!(event, Event::Subscribed { .. }).then_some(()));
    }

    /// The next message: topic and payload.
    pub fn message(&mut self) -> (String, String) {
        loop {
            if let Some(message) = self.came.pop_front() {
                return message;
            }
            self.answer(Vec::new(), |event| matches!(event, Event::Message(_)).then_some(()));
        }
    }

    /// Sends, and reads until something is the answer.
    fn answer<T>(&mut self, mut out: Vec<u8>, is_answer: impl Fn(&Event<'_>) -> Option<T>) -> T {
        loop {
            self.stream.write_all(&out).expect("sent");
            out.clear();
            let mut chunk = [0; 4_096];
            let read = self.stream.read(&mut chunk).expect("an answer in time");
            assert!(read > 0, "the platform closed the connection");
            self.read.extend_from_slice(&chunk[..read]);
            let mut answer: Option<T> = None;
            let came = &mut self.came;
            let taken = self.client.receive(&self.read, 0, &mut out, |event| {
                if let Event::Message(publish) = &event {
                    came.push_back((publish.topic.to_owned(), String::from_utf8_lossy(publish.payload).into_owned()));
                }
                if answer.is_none() {
                    answer = is_answer(&event);
                }
            });
            self.read.drain(..taken.expect("accepted, and packets of MQTT"));
            if let Some(answer) = answer {
                // What came has been acknowledged.
                self.stream.write_all(&out).expect("sent");
                return answer;
            }
        }
    }
}
