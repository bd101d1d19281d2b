//! Who is connected: reports of nodes in, lifecycle events out that never contradict each other (promise P4).
//!
//! Pure: reports may come twice, late, in any order, or not at all. Of each client the events alternate and their
//! epochs never decrease.

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
    known: BTreeMap<SessionKey, Session>,
    /// How many of them each node holds.
    held: BTreeMap<Arc<str>, usize>,
    /// The names that `known` is full of, each once.
    nodes: BTreeSet<Arc<str>>,
    tenants: BTreeSet<TenantId>,
    /// Changed since the view was last written.
    touched: BTreeSet<SessionKey>,
}

impl Sessions {
    /// The sessions of a view.
    pub fn restored(sessions: Vec<(SessionKey, Session)>) -> Self {
        let mut restored = Self::default();
        for (key, session) in sessions {
            let node = restored.shared_node(&session.node);
            restored.put(key, Session { node, ..session });
        }
        restored
    }

    /// The events a report amounts to; none if it is old or known.
    pub fn report(&mut self, report: Report) -> Vec<Event> {
        let former = self.known.get(&report.key).cloned();
        let connects = matches!(report.what, What::Connected { .. });
        let mut events = Vec::new();
        if let Some(former) = former {
            if report.epoch < former.epoch || (report.epoch == former.epoch && (connects || !former.connected)) {
                return events;
            }
            if report.epoch == former.epoch {
                events.push(report.clone());
            } else if former.connected {
                events.push(ended(&report.key, &former, TAKEN_OVER, report.time_ms));
            }
        }
        if connects {
            events.push(report.clone());
        }
        self.remember(&report, connects);
        events
    }

    /// The ends of what `node` held under an earlier boot: it has started anew.
    pub fn node_started(&mut self, node: &str, boot: u64, time_ms: u64) -> Vec<Event> {
        self.node_lost(node, |session| session.boot < boot, time_ms)
    }

    /// The ends of whatever `node` holds: it is gone.
    pub fn node_gone(&mut self, node: &str, time_ms: u64) -> Vec<Event> {
        self.node_lost(node, |_| true, time_ms)
    }

    /// Nodes that hold sessions.
    pub fn holders(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(|node| &**node)
    }

    fn node_lost(&mut self, node: &str, lost: impl Fn(&Session) -> bool, time_ms: u64) -> Vec<Event> {
        if !self.held.contains_key(node) {
            return Vec::new();
        }
        let lost =
            |(_, session): &(&SessionKey, &Session)| session.connected && *session.node == *node && lost(session);
        let events: Vec<Event> =
            self.known.iter().filter(lost).map(|(key, session)| ended(key, session, NODE_LOST, time_ms)).collect();
        events.iter().for_each(|event| self.remember(event, false));
        events
    }

    /// Takes over an event of the log.
    pub fn replay(&mut self, event: &Event) {
        self.remember(event, matches!(event.what, What::Connected { .. }));
    }

    /// Forgets clients that have been away since before `time_ms`.
    pub fn forget_before(&mut self, time_ms: u64) {
        let old = |session: &Session| !session.connected && session.changed_ms < time_ms;
        let gone = self.known.extract_if(.., |_, session| old(session)).map(|(key, _)| key);
        self.touched.extend(gone);
        self.nodes = self.known.values().map(|session| Arc::clone(&session.node)).collect();
        self.tenants = self.known.keys().map(|key| key.device.tenant.clone()).collect();
    }

    /// What changed since this was last asked; `None`: forgotten.
    pub fn take_changes(&mut self) -> Vec<(SessionKey, Option<Session>)> {
        let touched = std::mem::take(&mut self.touched);
        touched.into_iter().map(|key| (key.clone(), self.known.get(&key).cloned())).collect()
    }

    fn remember(&mut self, report: &Report, connected: bool) {
        let Report { key, node, boot, epoch, time_ms, .. } = report;
        let node = self.shared_node(node);
        let session = Session { connected, epoch: *epoch, changed_ms: *time_ms, node, boot: *boot };
        self.put(key.clone(), session);
        self.touched.insert(key.clone());
    }

    fn shared_node(&mut self, node: &str) -> Arc<str> {
        if let Some(known) = self.nodes.get(node) {
            return Arc::clone(known);
        }
        let node = Arc::from(node);
        self.nodes.insert(Arc::clone(&node));
        node
    }

    fn put(&mut self, mut key: SessionKey, session: Session) {
        match self.tenants.get(&key.device.tenant) {
            Some(known) => key.device.tenant = known.clone(),
            None => {
                self.tenants.insert(key.device.tenant.clone());
            }
        }
        if session.connected {
            *self.held.entry(Arc::clone(&session.node)).or_default() += 1;
        }
        let Some(former) = self.known.insert(key, session).filter(|former| former.connected) else { return };
        if let Some(held) = self.held.get_mut(&former.node) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&former.node);
            }
        }
    }
}

fn ended(key: &SessionKey, session: &Session, reason: &str, time_ms: u64) -> Event {
    Event {
        key: key.clone(),
        node: session.node.to_string(),
        boot: session.boot,
        epoch: session.epoch,
        time_ms,
        what: What::Disconnected { reason: reason.to_owned() },
    }
}

/// The value of an event's record, in the shape of AWS IoT's lifecycle events.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventJson {
    event_type: EventType,
    tenant: TenantId,
    device: DeviceId,
    client_id: ClientId,
    /// Milliseconds since the Unix epoch.
    timestamp: u64,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ip_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disconnect_reason: Option<String>,
    node: String,
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
    let Event { key: SessionKey { device, client }, node, boot, epoch, time_ms, what } = event.clone();
    let (event_type, ip_address, disconnect_reason) = match what {
        What::Connected { ip } => (EventType::Connected, Some(ip), None),
        What::Disconnected { reason } => (EventType::Disconnected, None, Some(reason)),
    };
    let DeviceKey { tenant, device } = device;
    let (client_id, timestamp) = (client, time_ms);
    let json = EventJson {
        event_type,
        tenant,
        device,
        client_id,
        timestamp,
        epoch,
        ip_address,
        disconnect_reason,
        node,
        boot,
    };
    serde_json::to_vec(&json).expect("numbers and strings are JSON")
}

/// The event of a record's value.
pub fn from_json(value: &[u8]) -> Result<Event, serde_json::Error> {
    let json: EventJson = serde_json::from_slice(value)?;
    let what = match json.event_type {
        EventType::Connected => What::Connected { ip: json.ip_address.unwrap_or_default() },
        EventType::Disconnected => What::Disconnected { reason: json.disconnect_reason.unwrap_or_default() },
    };
    let device = DeviceKey { tenant: json.tenant, device: json.device };
    let key = SessionKey { device, client: json.client_id };
    Ok(Event { key, node: json.node, boot: json.boot, epoch: json.epoch, time_ms: json.timestamp, what })
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

    #[test]
    fn names_that_many_sessions_share_are_kept_once_and_as_long_as_they_are_used() {
        let mut sessions = Sessions::default();
        for (client, node) in [("a", "n1"), ("b", "n1"), ("c", "n2")] {
            sessions.report(connected(client, node, 1));
        }
        let view = sessions.take_changes().into_iter().filter_map(|(key, session)| Some((key, session?)));
        let mut restored = Sessions::restored(
            view.map(|(key, session)| (key, Session { node: session.node.to_string().into(), ..session })).collect(),
        );
        for sessions in [&sessions, &restored] {
            let [a, b, c] = ["a", "b", "c"].map(|client| &sessions.known[&key(client)].node);
            assert!(Arc::ptr_eq(a, b) && !Arc::ptr_eq(a, c));
            assert_eq!((sessions.nodes.len(), sessions.tenants.len()), (2, 1));
        }
        restored.report(disconnected("c", "n2", 1));
        restored.forget_before(2);
        assert_eq!((restored.nodes.len(), restored.tenants.len()), (1, 1));
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
                    view = sessions.known.clone().into_iter().collect();
                    events.clear();
                }
                events.extend(feed(&mut sessions, input));
            }
            let mut restored = Sessions::restored(view);
            events.iter().for_each(|event| restored.replay(event));
            let live = |sessions: &Sessions| -> Vec<_> {
                sessions.known.iter().filter(|(_, s)| s.connected).map(|(k, s)| (k.clone(), s.clone())).collect()
            };
            prop_assert_eq!(live(&restored), live(&sessions));
        }
    }
}
