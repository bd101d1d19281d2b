//! What librdkafka can and the crate rdkafka does not wrap; the only unsafe code of the workspace (ADR 44, 45).

use std::ffi::{CStr, c_int};

use rdkafka::bindings::{
    rd_kafka_brokers_add, rd_kafka_consumer_group_metadata, rd_kafka_consumer_group_metadata_destroy,
    rd_kafka_consumer_group_metadata_generation_id, rd_kafka_consumer_group_metadata_member_id,
};
use rdkafka::client::{Client, ClientContext};

/// Tells a client of brokers (`HOST:PORT`, separated by commas), as `bootstrap.servers` did when it was made; how many it
/// knows by these names now. Does not wait for them. May be called by any thread.
#[expect(unsafe_code, reason = "a call of C")]
pub fn add_brokers<C: ClientContext>(client: &Client<C>, brokers: &CStr) -> usize {
    // SAFETY: the client and the string live as long as they are borrowed; librdkafka copies the string, and says that the
    // call may be made by any thread.
    let known: c_int = unsafe { rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
    usize::try_from(known).unwrap_or_default()
}

/// Who a client is in its consumer group: its member id. `None` while it is nobody: before it has joined, and where a static
/// member was put out, until it has joined again. May be called by any thread; waits for a thread of the client.
#[expect(unsafe_code, reason = "calls of C")]
pub fn in_group<C: ClientContext>(client: &Client<C>) -> Option<String> {
    // SAFETY: the client lives as long as it is borrowed. What it gives is ours, read while it is, and destroyed once.
    let (id, generation) = unsafe {
        let metadata = rd_kafka_consumer_group_metadata(client.native_ptr());
        if metadata.is_null() {
            return None;
        }
        let id = CStr::from_ptr(rd_kafka_consumer_group_metadata_member_id(metadata)).to_string_lossy().into_owned();
        let generation = rd_kafka_consumer_group_metadata_generation_id(metadata);
        rd_kafka_consumer_group_metadata_destroy(metadata);
        (id, generation)
    };
    (generation >= 0 && !id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;

    #[test]
    fn a_client_that_knows_no_broker_finds_one_it_is_told_of() {
        let cluster = MockCluster::new(1).expect("a cluster");
        let client: BaseConsumer = ClientConfig::new().create().expect("a client of no brokers");
        let asked = |wait| client.fetch_metadata(Some("t"), Duration::from_millis(wait));
        assert!(asked(100).is_err());
        let brokers = std::ffi::CString::new(cluster.bootstrap_servers()).expect("no zeros");
        assert_eq!(super::add_brokers(client.client(), &brokers), 1);
        assert_eq!(asked(10_000).expect("an answer").brokers().len(), 1);
    }

    #[test]
    fn a_client_is_somebody_in_its_group_once_it_has_joined() {
        const POLLS_MAX: u32 = 300;
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        let without: BaseConsumer = config.create().expect("a client without a group");
        assert_eq!(super::in_group(without.client()), None);
        let client: BaseConsumer = config.set("group.id", "g").create().expect("a client");
        assert_eq!(super::in_group(client.client()), None);
        client.subscribe(&["t"]).expect("subscribes");
        let joined = (0..POLLS_MAX).find_map(|_| {
            client.poll(Duration::from_millis(100));
            super::in_group(client.client())
        });
        assert!(joined.is_some_and(|id| !id.is_empty()), "it joins");
    }
}
