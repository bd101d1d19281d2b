//! Whether there are as many nodes as copies of a row: with fewer, a majority of them may never answer.

use std::collections::{BTreeMap, HashMap};

use scylla::client::session::Session;
use scylla::cluster::metadata::Strategy;

use crate::{OpenError, Options, Replication};

/// Nodes, or copies of each row, by datacenter.
type Counts = BTreeMap<String, usize>;

/// Refuses a keyspace that is to be made with more copies than there are nodes.
pub fn check(session: &Session, options: &Options) -> Result<(), OpenError> {
    let nodes = nodes(session);
    match shortage(&wanted(&options.replication, &nodes), &nodes, options.local_datacenter.as_deref()) {
        Some(reason) => Err(OpenError::Options { key: "replication", reason }),
        None => Ok(()),
    }
}

/// Says it of the keyspace that is used: it may have been made by somebody else, or nodes may have left since.
pub fn tell(session: &Session, options: &Options) {
    let (state, nodes) = (session.get_cluster_state(), nodes(session));
    let Some(keyspace) = state.get_keyspace(&options.keyspace) else { return };
    let local = options.local_datacenter.as_deref();
    let short = match &keyspace.strategy {
        Strategy::NetworkTopologyStrategy { datacenter_repfactors } => {
            shortage(&sorted(datacenter_repfactors), &nodes, local)
        }
        Strategy::SimpleStrategy { replication_factor } => {
            shortage(&anywhere(*replication_factor), &anywhere(nodes.values().sum()), None)
        }
        _ => None,
    };
    if let Some(why) = short.map(|short| format!("replication {short}")) {
        let keyspace = &options.keyspace;
        tracing::warn!(keyspace, why, "keyspace in more copies than there are nodes: add nodes, or ALTER KEYSPACE");
    }
}

/// Those that are down are among them: what is asked is what the node that answers has been told of the others.
fn nodes(session: &Session) -> Counts {
    let mut nodes = Counts::new();
    for datacenter in session.get_cluster_state().get_nodes_info().iter().filter_map(|node| node.datacenter.clone()) {
        *nodes.entry(datacenter).or_default() += 1;
    }
    nodes
}

/// One number is that of every datacenter there is.
fn wanted(replication: &Replication, nodes: &Counts) -> Counts {
    match replication {
        Replication::Factor(factor) => nodes.keys().map(|name| (name.clone(), usize::from(*factor))).collect(),
        Replication::PerDatacenter(factors) => {
            factors.iter().map(|(name, factor)| (name.clone(), usize::from(*factor))).collect()
        }
    }
}

fn sorted(factors: &HashMap<String, usize>) -> Counts {
    factors.iter().map(|(name, factor)| (name.clone(), *factor)).collect()
}

/// Where datacenters make no difference.
fn anywhere(count: usize) -> Counts {
    Counts::from([(String::new(), count)])
}

/// Where there are fewer nodes than copies, as what is said of the number of copies. If a `local` datacenter is named, only
/// that one is looked at: requests go nowhere else.
fn shortage(copies: &Counts, nodes: &Counts, local: Option<&str>) -> Option<String> {
    let (datacenter, wanted, there) = copies
        .iter()
        .filter(|(datacenter, _)| local.is_none_or(|local| local == datacenter.as_str()))
        .map(|(datacenter, wanted)| (datacenter, *wanted, nodes.get(datacenter).copied().unwrap_or(0)))
        .find(|(_, wanted, there)| wanted > there)?;
    let is_only = nodes.len() == 1 && nodes.contains_key(datacenter);
    let place = if is_only { "the cluster".to_owned() } else { format!("datacenter {datacenter:?}") };
    Some(format!("is {wanted}, {place} has {there} {}", if there == 1 { "node" } else { "nodes" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, usize)]) -> Counts {
        of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_factor_is_for_every_datacenter_and_the_first_one_with_too_few_nodes_is_named() {
        let one = counts(&[("dc1", 1)]);
        let copies = |factor, nodes: &Counts| wanted(&Replication::Factor(factor), nodes);
        assert_eq!(shortage(&copies(1, &one), &one, None), None);
        assert_eq!(shortage(&copies(3, &one), &one, None).as_deref(), Some("is 3, the cluster has 1 node"));
        let two = counts(&[("dc1", 3), ("dc2", 2)]);
        let short = shortage(&copies(3, &two), &two, None);
        assert_eq!(short.as_deref(), Some(r#"is 3, datacenter "dc2" has 2 nodes"#));
    }

    #[test]
    fn of_several_datacenters_the_named_one_counts() {
        let nodes = counts(&[("dc1", 3), ("dc2", 2)]);
        let three = wanted(&Replication::Factor(3), &nodes);
        assert_eq!(shortage(&three, &nodes, Some("dc1")), None);
        assert!(shortage(&three, &nodes, Some("dc2")).is_some());
        let each = Replication::PerDatacenter(BTreeMap::from([("dc1".to_owned(), 3), ("dc3".to_owned(), 1)]));
        let short = shortage(&wanted(&each, &nodes), &nodes, None);
        assert_eq!(short.as_deref(), Some(r#"is 1, datacenter "dc3" has 0 nodes"#));
    }

    #[test]
    fn where_datacenters_make_no_difference_all_nodes_count() {
        assert_eq!(shortage(&anywhere(3), &anywhere(3), None), None);
        let short = shortage(&anywhere(3), &anywhere(2), None);
        assert_eq!(short.as_deref(), Some("is 3, the cluster has 2 nodes"));
    }
}
