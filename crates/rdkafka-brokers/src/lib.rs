//! One call of librdkafka that the crate rdkafka does not wrap; the only unsafe code of the workspace (ADR 44).

use std::ffi::{CStr, c_int};

use rdkafka::bindings::rd_kafka_brokers_add;
use rdkafka::client::{Client, ClientContext};

/// Tells a client of brokers (`HOST:PORT`, separated by commas), as `bootstrap.servers` did when it was made; how many it
/// knows by these names now. Does not wait for them. May be called by any thread.
#[expect(unsafe_code, reason = "a call of C")]
pub fn add<C: ClientContext>(client: &Client<C>, brokers: &CStr) -> usize {
    // SAFETY: the client and the string live as long as they are borrowed; librdkafka copies the string, and says that the
    // call may be made by any thread.
    let known: c_int = unsafe { rd_kafka_brokers_add(client.native_ptr(), brokers.as_ptr()) };
    usize::try_from(known).unwrap_or_default()
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
        assert_eq!(super::add(client.client(), &brokers), 1);
        assert_eq!(asked(10_000).expect("an answer").brokers().len(), 1);
    }
}
