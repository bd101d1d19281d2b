//! Session, migrations and prepared statements for Scylla and Cassandra.
