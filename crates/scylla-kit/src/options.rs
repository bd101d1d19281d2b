//! How the database is reached, and what is checked of it before anything is dialled.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::OpenError;

/// Port of a host that names none.
const PORT: u16 = 9042;
/// Longest name of a keyspace; Cassandra's.
const KEYSPACE_BYTES_MAX: usize = 48;

/// Where the database is and how it is spoken to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Some nodes, `HOST` or `HOST:PORT`; the others are found through them.
    pub hosts: Vec<String>,
    /// Made if it is missing; lower case letters, digits and `_`.
    pub keyspace: String,
    /// Of a keyspace that is made; one that is there stays as it is.
    pub replication: Replication,
    /// Requests go to this datacenter only; `None`: to any.
    pub local_datacenter: Option<String>,
    pub credentials: Option<Credentials>,
    /// Of reads and writes.
    pub consistency: Consistency,
    /// Of compare-and-set.
    pub serial_consistency: SerialConsistency,
    /// How long one request may take, retries included; what an adapter does may be several.
    pub request_timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    pub tls: Option<Tls>,
}

/// User and password.
#[derive(Clone)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).field("password", &"(hidden)").finish()
    }
}

/// Encryption on the way; files are PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Who may have signed the nodes' certificates.
    pub ca: PathBuf,
    /// What this process shows of itself, certificate and key, where nodes demand it.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How many copies there are of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Replication {
    /// In every datacenter.
    Factor(u8),
    /// By datacenter.
    PerDatacenter(BTreeMap<String, u8>),
}

/// How many copies take part in a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// A majority in the local datacenter.
    LocalQuorum,
    /// A majority of all.
    Quorum,
    /// A majority in each datacenter; writes only, reads are `quorum`.
    EachQuorum,
    All,
}

/// Among which copies a compare-and-set is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SerialConsistency {
    /// Those of the local datacenter: right as long as all writers are in one.
    LocalSerial,
    /// All.
    Serial,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: vec!["127.0.0.1".to_owned()],
            keyspace: "drover".to_owned(),
            replication: Replication::Factor(3),
            local_datacenter: None,
            credentials: None,
            consistency: Consistency::LocalQuorum,
            serial_consistency: SerialConsistency::LocalSerial,
            request_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            tls: None,
        }
    }
}

impl Options {
    /// Refuses what cannot work, with the key that is wrong.
    pub fn check(&self) -> Result<(), OpenError> {
        let refuse = |key, reason: String| Err(OpenError::Options { key, reason });
        if self.hosts.is_empty() || self.hosts.iter().any(String::is_empty) {
            return refuse("hosts", "names no host".to_owned());
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !self.keyspace.starts_with(|c: char| c.is_ascii_lowercase()) || !self.keyspace.chars().all(allowed) {
            return refuse("keyspace", format!("{:?} is not lower case letters, digits and _", self.keyspace));
        }
        if self.keyspace.len() > KEYSPACE_BYTES_MAX {
            let length = self.keyspace.len();
            return refuse("keyspace", format!("has {length} letters, at most {KEYSPACE_BYTES_MAX} are allowed"));
        }
        self.replication.check()?;
        if self.tls.is_some() && !cfg!(feature = "cassandra-tls") {
            return refuse(
                "tls",
                "this drover was built without TLS to Cassandra (cargo feature cassandra-tls)".into(),
            );
        }
        Ok(())
    }

    /// The hosts with their ports.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = String> + '_ {
        self.hosts.iter().map(|host| {
            if host.parse::<Ipv6Addr>().is_ok() {
                return format!("[{host}]:{PORT}");
            }
            let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            if has_port { host.clone() } else { format!("{host}:{PORT}") }
        })
    }
}

impl Replication {
    fn check(&self) -> Result<(), OpenError> {
        let refuse = |reason: &str| Err(OpenError::Options { key: "replication", reason: reason.to_owned() });
        let plain = |name: &String| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        match self {
            Replication::Factor(0) => refuse("is 0, at least one copy is needed"),
            Replication::PerDatacenter(factors)
                if factors.is_empty() || factors.values().any(|factor| *factor == 0) =>
            {
                refuse("needs at least one copy in at least one datacenter")
            }
            Replication::PerDatacenter(factors) if !factors.keys().all(plain) => {
                refuse("names a datacenter with other letters than A-Z a-z 0-9 . _ -")
            }
            Replication::Factor(_) | Replication::PerDatacenter(_) => Ok(()),
        }
    }

    /// As CQL writes it.
    pub(crate) fn cql(&self) -> String {
        let options = match self {
            Replication::Factor(factor) => format!("'replication_factor': {factor}"),
            Replication::PerDatacenter(factors) => {
                let each: Vec<String> = factors.iter().map(|(name, factor)| format!("'{name}': {factor}")).collect();
                each.join(", ")
            }
        };
        format!("{{'class': 'NetworkTopologyStrategy', {options}}}")
    }
}

impl From<Consistency> for scylla::statement::Consistency {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::LocalQuorum => Self::LocalQuorum,
            Consistency::Quorum => Self::Quorum,
            Consistency::EachQuorum => Self::EachQuorum,
            Consistency::All => Self::All,
        }
    }
}

impl Consistency {
    /// What a read asks for where writes use this.
    pub(crate) fn of_reads(self) -> scylla::statement::Consistency {
        match self {
            Consistency::EachQuorum => scylla::statement::Consistency::Quorum,
            Consistency::LocalQuorum | Consistency::Quorum | Consistency::All => self.into(),
        }
    }
}

impl From<SerialConsistency> for scylla::statement::SerialConsistency {
    fn from(consistency: SerialConsistency) -> Self {
        match consistency {
            SerialConsistency::LocalSerial => Self::LocalSerial,
            SerialConsistency::Serial => Self::Serial,
        }
    }
}

impl SerialConsistency {
    /// What a read asks for that has to see the outcome of every compare-and-set.
    pub(crate) fn of_reads(self) -> scylla::statement::Consistency {
        match self {
            SerialConsistency::LocalSerial => scylla::statement::Consistency::LocalSerial,
            SerialConsistency::Serial => scylla::statement::Consistency::Serial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: Options) -> String {
        options.check().expect_err("refused").to_string()
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        assert!(Options::default().check().is_ok());
        let base = Options::default;
        assert_eq!(refused(Options { hosts: vec![], ..base() }), "cassandra.hosts names no host");
        let upper = refused(Options { keyspace: "Drover".into(), ..base() });
        assert_eq!(upper, r#"cassandra.keyspace "Drover" is not lower case letters, digits and _"#);
        let long = refused(Options { keyspace: "k".repeat(49), ..base() });
        assert_eq!(long, "cassandra.keyspace has 49 letters, at most 48 are allowed");
        assert!(Options { keyspace: "k".repeat(48), ..base() }.check().is_ok());
        let none = refused(Options { replication: Replication::Factor(0), ..base() });
        assert_eq!(none, "cassandra.replication is 0, at least one copy is needed");
        let quote = Replication::PerDatacenter(BTreeMap::from([("a'b".to_owned(), 1)]));
        assert!(refused(Options { replication: quote, ..base() }).contains("names a datacenter"));
        if cfg!(not(feature = "cassandra-tls")) {
            let tls = Some(Tls { ca: "ca.pem".into(), identity: None });
            assert!(refused(Options { tls, ..base() }).contains("cargo feature cassandra-tls"));
        }
    }

    #[test]
    fn a_host_without_a_port_has_the_usual_one() {
        let hosts = ["a", "b:1", "::1", "[::1]:2"].map(str::to_owned).to_vec();
        let options = Options { hosts, ..Options::default() };
        assert_eq!(options.nodes().collect::<Vec<_>>(), ["a:9042", "b:1", "[::1]:9042", "[::1]:2"]);
    }

    #[test]
    fn replication_is_a_number_or_a_table_by_datacenter() {
        let read = |text: &str| serde_json::from_str::<Replication>(text).expect("valid").cql();
        assert_eq!(read("3"), "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}");
        assert_eq!(read(r#"{"dc1": 3, "dc2": 2}"#), "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': 2}");
    }
}
