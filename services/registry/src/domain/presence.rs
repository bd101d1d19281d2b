//! Who is connected: reports of nodes in, lifecycle events out that never contradict each other (promise P4).
//!
//! Pure: reports may come twice, late, in any order, or not at all. Of each client the events alternate and their
//! epochs never decrease.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use drover_types::{ClientId, DeviceId, DeviceKey, TenantId};
use serde::{Deserialize, Serialize};

use crate::ports::{Session, SessionKey};

/// Reason of a disconnect nobody reported, because the same client connected again.
const TAKEN_OVER: &str = "taken_over";
/// Reason of a disconnect nobody reported, because the node is gone.
const NODE_LOST: &str = "node_lost";

/// What a node says of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub key: SessionKey,
    pub node: String,
    /// Number of the start of the node.
    pub boot: u64,
    pub epoch: u64,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub what: What,
}

/// What happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Connected {
        /// IP address of the peer.
        ip: String,
    },
    Disconnected {
        reason: String,
    },
}

/// A lifecycle event: a report that fits what was said before, or one that had to be said in between.
pub type Event = Report;

/// The last that was said of each client in one partition.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Of each tenant, by [`name_of`].
    known: BTreeMap<TenantId, BTreeMap<Box<str>, Said>>,
    /// How many of them each node holds.
    held: BTreeMap<Arc<str>, usize>,
    /// Those that `known` is full of, each once: two for each start of a node, until nobody stands so any more.
    standings: Vec<Arc<Standing>>,
    /// Changed since the view was last written.
    touched: BTreeSet<SessionKey>,
}

/// What is kept of one client. There is one for each that was connected in the last weeks: every byte counts.
#[derive(Debug)]
struct Said {
    epoch: u64,
    changed_ms: u64,
    standing: Arc<Standing>,
}

/// Where clients are, or were last.
#[derive(Debug)]
struct Standing {
    connected: bool,
    node: Arc<str>,
    boot: u64,
}

impl From<&Said> for Session {
    fn from(said: &Said) -> Self {
        let Said { epoch, changed_ms, standing } = said;
        let Standing { connected, node, boot } = &**standing;
        Self { connected: *connected, epoch: *epoch, changed_ms: *changed_ms, node: Arc::clone(node), boot: *boot }
    }
}

impl Sessions {
    /// The sessions of a view.
    pub fn restored(sessions: Vec<(SessionKey, Session)>) -> Self {
        let mut restored = Self::default();
        for (key, Session { connected, epoch, changed_ms, node, boot }) in sessions {
            let standing = restored.standing(connected, &node, boot);
            restored.put(&key, Said { epoch, changed_ms, standing });
        }
        restored
    }

    /// The events a report amounts to; none if it is old or known.
    pub fn report(&mut self, report: Report) -> Vec<Event> {
        let connects = matches!(report.what, What::Connected { .. });
        let (mut events, mut is_told) = (Vec::new(), connects);
        if let Some(former) = self.said(&report.key) {
            let was_connected = former.standing.connected;
            if report.epoch < former.epoch || (report.epoch == former.epoch && (connects || !was_connected)) {
                return events;
            }
            if report.epoch == former.epoch {
                is_told = true;
            } else if was_connected {
                events.push(ended(report.key.clone(), former, TAKEN_OVER, report.time_ms));
            }
        }
        self.remember(&report, connects);
        events.extend(is_told.then_some(report));
        events
    }

    /// The ends of what `node` held under an earlier boot: it has started anew.
    pub fn node_started(&mut self, node: &str, boot: u64, time_ms: u64) -> Vec<Event> {
        self.node_lost(node, |standing| standing.boot < boot, time_ms)
    }

    /// The ends of whatever `node` holds: it is gone.
    pub fn node_gone(&mut self, node: &str, time_ms: u64) -> Vec<Event> {
        self.node_lost(node, |_| true, time_ms)
    }

    /// Nodes that hold sessions.
    pub fn holders(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(|node| &**node)
    }

    fn node_lost(&mut self, node: &str, lost: impl Fn(&Standing) -> bool, time_ms: u64) -> Vec<Event> {
        if !self.held.contains_key(node) {
            return Vec::new();
        }
        let lost = |standing: &Standing| standing.connected && *standing.node == *node && lost(standing);
        let mut events = Vec::new();
        for (tenant, sessions) in &self.known {
            for (name, said) in sessions.iter().filter(|(_, said)| lost(&said.standing)) {
                events.push(ended(key_of(tenant, name), said, NODE_LOST, time_ms));
            }
        }
        events.iter().for_each(|event| self.remember(event, false));
        events
    }

    /// Takes over an event of the log.
    pub fn replay(&mut self, event: &Event) {
        self.remember(event, matches!(event.what, What::Connected { .. }));
    }

    /// Forgets clients that have been away since before `time_ms`.
    pub fn forget_before(&mut self, time_ms: u64) {
        for (tenant, sessions) in &mut self.known {
            let gone = sessions.extract_if(.., |_, said| !said.standing.connected && said.changed_ms < time_ms);
            self.touched.extend(gone.map(|(name, _)| key_of(tenant, &name)));
        }
        self.known.retain(|_, sessions| !sessions.is_empty());
        self.standings.retain(|standing| Arc::strong_count(standing) > 1);
    }

    /// What changed since this was last asked; `None`: forgotten.
    pub fn take_changes(&mut self) -> Vec<(SessionKey, Option<Session>)> {
        let touched = std::mem::take(&mut self.touched).into_iter();
        let change = |key| {
            let session = self.said(&key).map(Session::from);
            (key, session)
        };
        touched.map(change).collect()
    }

    fn said(&self, key: &SessionKey) -> Option<&Said> {
        self.known.get(&key.device.tenant)?.get(&*name_of(key))
    }

    fn remember(&mut self, report: &Report, connected: bool) {
        let Report { key, node, boot, epoch, time_ms, .. } = report;
        let standing = self.standing(connected, node, *boot);
        self.put(key, Said { epoch: *epoch, changed_ms: *time_ms, standing });
        self.touched.insert(key.clone());
    }

    fn standing(&mut self, connected: bool, node: &str, boot: u64) -> Arc<Standing> {
        let is_it = |known: &&Arc<Standing>| known.connected == connected && known.boot == boot && *known.node == *node;
        if let Some(known) = self.standings.iter().find(is_it) {
            return Arc::clone(known);
        }
        let standing = Arc::new(Standing { connected, node: node.into(), boot });
        self.standings.push(Arc::clone(&standing));
        standing
    }

    fn put(&mut self, key: &SessionKey, said: Said) {
        if said.standing.connected {
            *self.held.entry(Arc::clone(&said.standing.node)).or_default() += 1;
        }
        let of_tenant = self.known.entry(key.device.tenant.clone()).or_default();
        let former = of_tenant.insert(name_of(key).into(), said);
        let Some(former) = former.filter(|former| former.standing.connected) else { return };
        if let Some(held) = self.held.get_mut(&former.standing.node) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&former.standing.node);
            }
        }
    }
}

/// A client within its tenant, in one text: the device id and, where the client id is another, that behind a zero byte, which
/// no id holds.
fn name_of(key: &SessionKey) -> Cow<'_, str> {
    let (device, client) = (key.device.device.as_str(), key.client.as_str());
    if device == client { Cow::Borrowed(device) } else { Cow::Owned(format!("{device}\0{client}")) }
}

/// The client of a name.
fn key_of(tenant: &TenantId, name: &str) -> SessionKey {
    let (device, client) = name.split_once('\0').unwrap_or((name, name));
    let device = DeviceId::new(device).expect("it was one when it was named");
    let client = ClientId::new(client).expect("it was one when it was named");
    SessionKey { device: DeviceKey { tenant: tenant.clone(), device }, client }
}

fn ended(key: SessionKey, said: &Said, reason: &str, time_ms: u64) -> Event {
    Event {
        key,
        node: said.standing.node.to_string(),
        boot: said.standing.boot,
        epoch: said.epoch,
        time_ms,
        what: What::Disconnected { reason: reason.to_owned() },
    }
}

/// The value of an event's record, in the shape of AWS IoT's lifecycle events.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    event_type: EventType,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    device: Cow<'a, str>,
    #[serde(borrow)]
    client_id: Cow<'a, str>,
    /// Milliseconds since the Unix epoch.
    timestamp: u64,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_address: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(default)]
    boot: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventType {
    Connected,
    Disconnected,
}

/// The value of an event's record.
pub fn to_json(event: &Event) -> Vec<u8> {
    let Event { key: SessionKey { device, client }, node, boot, epoch, time_ms, what } = event;
    let (event_type, ip_address, disconnect_reason) = match what {
        What::Connected { ip } => (EventType::Connected, Some(ip.into()), None),
        What::Disconnected { reason } => (EventType::Disconnected, None, Some(reason.into())),
    };
    let json = EventJson {
        event_type,
        tenant: device.tenant.as_str().into(),
        device: device.device.as_str().into(),
        client_id: client.as_str().into(),
        timestamp: *time_ms,
        epoch: *epoch,
        ip_address,
        disconnect_reason,
        node: node.into(),
        boot: *boot,
    };
    serde_json::to_vec(&json).expect("numbers and strings are JSON")
}

/// The event of a record's value.
pub fn from_json(value: &[u8]) -> Result<Event, serde_json::Error> {
    let json: EventJson<'_> = serde_json::from_slice(value)?;
    let what = match json.event_type {
        EventType::Connected => What::Connected { ip: json.ip_address.unwrap_or_default().into_owned() },
        EventType::Disconnected => {
            What::Disconnected { reason: json.disconnect_reason.unwrap_or_default().into_owned() }
        }
    };
    let invalid = <serde_json::Error as serde::de::Error>::custom;
    let device = DeviceKey {
        tenant: TenantId::new(json.tenant).map_err(invalid)?,
        device: DeviceId::new(json.device).map_err(invalid)?,
    };
    let key = SessionKey { device, client: ClientId::new(json.client_id).map_err(invalid)? };
    Ok(Event { key, node: json.node.into_owned(), boot: json.boot, epoch: json.epoch, time_ms: json.timestamp, what })
}

/// The IP address of `address:port`; whatever else it is, as it is.
pub fn ip_of(peer: &str) -> String {
    peer.parse::<SocketAddr>().map_or_else(|_| peer.to_owned(), |address| address.ip().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(client: &str) -> SessionKey {
        let device = DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new("d").expect("valid") };
        SessionKey { device, client: ClientId::new(client).expect("valid") }
    }

    fn connected(client: &str, node: &str, epoch: u64) -> Report {
        let what = What::Connected { ip: "10.0.0.1".into() };
        Report { key: key(client), node: node.into(), boot: 1, epoch, time_ms: epoch, what }
    }

    fn disconnected(client: &str, node: &str, epoch: u64) -> Report {
        Report { what: What::Disconnected { reason: "client".into() }, ..connected(client, node, epoch) }
    }

    #[test]
    fn reports_in_order_are_the_events() {
        let mut sessions = Sessions::default();
        for report in [connected("c", "n", 1), disconnected("c", "n", 1), connected("c", "n", 2)] {
            assert_eq!(sessions.report(report.clone()), [report]);
        }
    }

    #[test]
    fn a_take_over_ends_the_former_session_first_and_its_late_reports_are_dropped() {
        let mut sessions = Sessions::default();
        sessions.report(connected("c", "n1", 1));
        let events = sessions.report(connected("c", "n2", 2));
        assert_eq!(events.len(), 2);
        assert_eq!((events[0].node.as_str(), events[0].epoch), ("n1", 1));
        assert_eq!(events[0].what, What::Disconnected { reason: TAKEN_OVER.into() });
        assert_eq!(events[1], connected("c", "n2", 2));
        assert_eq!(sessions.report(disconnected("c", "n1", 1)), []);
        assert_eq!(sessions.report(connected("c", "n1", 1)), []);
    }

    #[test]
    fn a_disconnect_whose_connect_never_came_says_nothing_and_bars_the_late_connect() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.report(disconnected("c", "n", 3)), []);
        assert_eq!(sessions.report(connected("c", "n", 3)), []);
        assert_eq!(sessions.report(connected("c", "n", 4)).len(), 1);
        let events = sessions.report(disconnected("c", "n", 5));
        assert_eq!(events.iter().map(|e| e.epoch).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_node_that_starts_anew_ends_its_own_older_sessions_only() {
        let mut sessions = Sessions::default();
        let anew = Report { boot: 2, ..connected("c", "n1", 9) };
        for report in [connected("a", "n1", 10), connected("b", "n2", 1), anew] {
            sessions.report(report);
        }
        let events = sessions.node_started("n1", 2, 50);
        assert_eq!(events.len(), 1, "epochs say nothing of starts");
        assert_eq!((events[0].key.clone(), events[0].time_ms), (key("a"), 50));
        assert_eq!(sessions.node_started("n1", 2, 50), []);
    }

    #[test]
    fn a_node_that_is_gone_holds_nothing_any_more_and_what_it_says_of_it_later_is_dropped() {
        let mut sessions = Sessions::default();
        for report in [connected("a", "n1", 1), connected("b", "n2", 1), connected("c", "n1", 2)] {
            sessions.report(report);
        }
        assert_eq!(sessions.holders().collect::<Vec<_>>(), ["n1", "n2"]);
        let events = sessions.node_gone("n1", 50);
        let lost = What::Disconnected { reason: NODE_LOST.into() };
        assert_eq!(
            events.iter().map(|e| (e.epoch, e.what.clone())).collect::<Vec<_>>(),
            [(1, lost.clone()), (2, lost)]
        );
        assert_eq!(sessions.holders().collect::<Vec<_>>(), ["n2"]);
        assert_eq!(sessions.report(disconnected("a", "n1", 1)), []);
        assert_eq!(sessions.report(connected("c", "n1", 2)), []);
        assert_eq!(sessions.report(connected("a", "n1", 3)).len(), 1, "it was not gone after all");
    }

    #[test]
    fn clients_long_gone_are_forgotten_and_connected_ones_kept() {
        let mut sessions = Sessions::default();
        for report in [connected("a", "n", 1), connected("b", "n", 1), disconnected("b", "n", 1)] {
            sessions.report(report);
        }
        sessions.take_changes();
        sessions.forget_before(2);
        assert_eq!(sessions.take_changes(), [(key("b"), None)]);
    }

    /// All that is known.
    fn view(sessions: &Sessions) -> Vec<(SessionKey, Session)> {
        let mut view = Vec::new();
        for (tenant, known) in &sessions.known {
            view.extend(known.iter().map(|(name, said)| (key_of(tenant, name), Session::from(said))));
        }
        view
    }

    #[test]
    fn what_many_sessions_share_is_kept_once_and_as_long_as_it_is_used() {
        let mut sessions = Sessions::default();
        for (client, node) in [("a", "n1"), ("b", "n1"), ("c", "n2")] {
            sessions.report(connected(client, node, 1));
        }
        let mut restored = Sessions::restored(view(&sessions));
        for sessions in [&sessions, &restored] {
            let [a, b, c] = ["a", "b", "c"].map(|client| &sessions.said(&key(client)).expect("is known").standing);
            assert!(Arc::ptr_eq(a, b) && !Arc::ptr_eq(a, c));
            assert_eq!(sessions.standings.len(), 2);
        }
        restored.report(disconnected("c", "n2", 1));
        restored.forget_before(2);
        assert_eq!((restored.standings.len(), restored.known.len()), (1, 1));
    }

    #[test]
    fn a_client_takes_forty_bytes_and_its_name_which_is_the_devices_where_they_are_the_same() {
        assert_eq!(size_of::<(Box<str>, Said)>(), 40);
        for (client, name) in [("d", "d"), ("c", "d\0c")] {
            assert_eq!(name_of(&key(client)), name);
            assert_eq!(key_of(&TenantId::default_tenant(), name), key(client));
        }
    }

    #[test]
    fn events_survive_json() {
        for event in [connected("c", "n", 1), disconnected("c", "n", 1)] {
            assert_eq!(from_json(&to_json(&event)).expect("our own"), event);
        }
        let text = String::from_utf8(to_json(&connected("c", "n", 1))).expect("utf-8");
        let expected = r#"{"eventType":"connected","tenant":"default","device":"d","clientId":"c","timestamp":1,"epoch":1,"ipAddress":"10.0.0.1","node":"n","boot":1}"#;
        assert_eq!(text, expected);
        assert_eq!(ip_of("10.0.0.1:5"), "10.0.0.1");
        assert_eq!(ip_of("[::1]:5"), "::1");
    }

    #[derive(Clone, Debug)]
    enum Input {
        Report(Report),
        Started { node: String, boot: u64 },
        Gone { node: String },
    }

    /// A run of sessions over two clients and two nodes, then shuffled, with repeats and gaps.
    fn inputs() -> impl Strategy<Value = Vec<Input>> {
        let one = (0u8..6, prop::sample::select(vec!["a", "b"]), prop::sample::select(vec!["n1", "n2"]), 1u64..12);
        let input = one.prop_map(|(what, client, node, epoch)| match what {
            0 | 1 => Input::Report(connected(client, node, epoch)),
            2 | 3 => Input::Report(disconnected(client, node, epoch)),
            4 => Input::Started { node: node.into(), boot: epoch % 3 },
            _ => Input::Gone { node: node.into() },
        });
        prop::collection::vec(input, 0..60)
    }

    fn feed(sessions: &mut Sessions, input: Input) -> Vec<Event> {
        match input {
            Input::Report(report) => sessions.report(report),
            Input::Started { node, boot } => sessions.node_started(&node, boot, 99),
            Input::Gone { node } => sessions.node_gone(&node, 99),
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_events_alternate_and_epochs_never_decrease(inputs in inputs()) {
            let mut sessions = Sessions::default();
            let mut last: BTreeMap<SessionKey, (bool, u64)> = BTreeMap::new();
            for event in inputs.into_iter().flat_map(|input| feed(&mut sessions, input)) {
                let now = matches!(event.what, What::Connected { .. });
                let (was, epoch) = last.insert(event.key.clone(), (now, event.epoch)).unwrap_or((false, 0));
                prop_assert_ne!(was, now);
                prop_assert!(event.epoch >= epoch);
            }
        }

        #[test]
        fn a_view_and_the_events_after_it_tell_the_same_as_all_reports(inputs in inputs(), cut in 0usize..60) {
            let mut sessions = Sessions::default();
            let (mut view, mut events) = (Vec::new(), Vec::new());
            for (i, input) in inputs.into_iter().enumerate() {
                if i == cut {
                    view = self::view(&sessions);
                    events.clear();
                }
                events.extend(feed(&mut sessions, input));
            }
            let mut restored = Sessions::restored(view);
            events.iter().for_each(|event| restored.replay(event));
            let live = |sessions: &Sessions| -> Vec<_> {
                self::view(sessions).into_iter().filter(|(_, session)| session.connected).collect()
            };
            prop_assert_eq!(live(&restored), live(&sessions));
        }
    }
}
