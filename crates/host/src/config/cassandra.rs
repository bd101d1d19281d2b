//! `[cassandra]`: the database that all services of the process share; a service's store says only that it is there.

use std::path::PathBuf;

use drover_scylla_kit::{Consistency, Credentials, Options, Replication, SerialConsistency, Tls};
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::Duration;

/// How long a request or a connection may take, at least and at most.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(120));

/// Where Cassandra or Scylla is, and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CassandraConfig {
    /// Some nodes, `HOST` or `HOST:PORT`; the others are found through them.
    pub hosts: Vec<String>,
    /// Made if it is missing.
    pub keyspace: String,
    /// Copies of each row in a keyspace that is made: a number, or a table by datacenter.
    pub replication: Replication,
    /// Requests go to this datacenter only; absent: to any.
    pub local_datacenter: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// `local_quorum`, `quorum`, `each_quorum` or `all`.
    pub consistency: Consistency,
    /// Of compare-and-set: `local_serial`, or `serial` where writers are in several datacenters.
    pub serial_consistency: SerialConsistency,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    pub tls: CassandraTls,
}

/// `[cassandra.tls]`: needs a build with the cargo feature `cassandra-tls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CassandraTls {
    /// Who may have signed the nodes' certificates (PEM); absent: no TLS.
    pub ca: Option<PathBuf>,
    /// What this process shows of itself (PEM), with its key.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Default for CassandraConfig {
    fn default() -> Self {
        let Options { hosts, keyspace, replication, consistency, serial_consistency, .. } = Options::default();
        Self {
            hosts,
            keyspace,
            replication,
            local_datacenter: None,
            username: None,
            password: None,
            consistency,
            serial_consistency,
            request_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            tls: CassandraTls::default(),
        }
    }
}

impl CassandraConfig {
    /// What a connection is made with; the error names the key that is wrong.
    pub fn options(&self) -> Result<Options, (&'static str, String)> {
        for (key, value) in
            [("cassandra.request_timeout", self.request_timeout), ("cassandra.connect_timeout", self.connect_timeout)]
        {
            let (least, most) = TIMEOUTS;
            if value < least || value > most {
                return Err((key, format!("is {value}, allowed are {least} to {most}")));
            }
        }
        let credentials = match (&self.username, &self.password) {
            (Some(username), Some(password)) => {
                Some(Credentials { username: username.clone(), password: password.expose().to_owned() })
            }
            (None, None) => None,
            (Some(_), None) => return Err(("cassandra.password", "is missing, cassandra.username is set".to_owned())),
            (None, Some(_)) => return Err(("cassandra.username", "is missing, cassandra.password is set".to_owned())),
        };
        Ok(Options {
            hosts: self.hosts.clone(),
            keyspace: self.keyspace.clone(),
            replication: self.replication.clone(),
            local_datacenter: self.local_datacenter.clone(),
            credentials,
            consistency: self.consistency,
            serial_consistency: self.serial_consistency,
            request_timeout: self.request_timeout.as_std(),
            connect_timeout: self.connect_timeout.as_std(),
            tls: self.tls.options()?,
        })
    }

    /// Refuses what cannot work.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.options()?.check().map_err(|error| ("cassandra", error.to_string()))
    }
}

impl CassandraTls {
    fn options(&self) -> Result<Option<Tls>, (&'static str, String)> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(("cassandra.tls.key", "is missing, the certificate is set".to_owned())),
            (None, Some(_)) => return Err(("cassandra.tls.certificate", "is missing, the key is set".to_owned())),
        };
        match &self.ca {
            Some(ca) => Ok(Some(Tls { ca: ca.clone(), identity })),
            None if identity.is_some() => Err(("cassandra.tls.ca", "is missing, the certificate is set".to_owned())),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> CassandraConfig {
        toml::from_str(text).expect("valid TOML")
    }

    #[test]
    fn a_number_or_a_table_says_how_many_copies_there_are() {
        assert_eq!(read("").check(), Ok(()));
        assert_eq!(read("replication = 1").replication, Replication::Factor(1));
        let table = read("[replication]\ndc1 = 3\ndc2 = 2").replication;
        assert_eq!(table, Replication::PerDatacenter([("dc1".to_owned(), 3), ("dc2".to_owned(), 2)].into()));
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        for (text, key, reason) in [
            ("request_timeout = \"99ms\"", "cassandra.request_timeout", "is 99ms, allowed are 100ms to 2m"),
            ("connect_timeout = \"121s\"", "cassandra.connect_timeout", "is 121s, allowed are 100ms to 2m"),
            ("username = \"u\"", "cassandra.password", "is missing, cassandra.username is set"),
            ("password = \"p\"", "cassandra.username", "is missing, cassandra.password is set"),
            ("[tls]\nkey = \"k\"", "cassandra.tls.certificate", "is missing, the key is set"),
            ("hosts = []", "cassandra", "cassandra.hosts names no host"),
        ] {
            assert_eq!(read(text).check(), Err((key, reason.to_owned())), "{text}");
        }
        let shown = serde_json::to_string(&read("username = \"u\"\npassword = \"p4ss\"")).expect("plain data");
        assert!(!shown.contains("p4ss"), "{shown}");
    }
}
