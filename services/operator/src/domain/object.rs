//! What has to be done for one object of the registry to be as it is declared: whose it is decides.

use super::problem::Problem;
use crate::ports::{Found, Wanted};

/// Annotation by which an object takes over what is in the registry under its name, `"true"`.
pub const ADOPT: &str = "drover.dev/adopt";

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is as declared.
    Nothing,
    Create,
    /// Write over this revision.
    Replace {
        revision: u64,
        /// What somebody else has changed meanwhile; empty: nobody has.
        drift: Vec<&'static str>,
    },
    /// It is another's.
    Refuse(Problem),
}

/// Compares what is declared with what is there. `accepted`: the registry has had this very declaration before, so that a
/// difference is somebody else's doing. `adopt`: the object may take over what nobody or another keeps.
pub fn plan<S: PartialEq>(wanted: &Wanted<S>, found: Option<&Found<S>>, accepted: bool, adopt: bool) -> Step {
    let Some(found) = found else { return Step::Create };
    let revision = found.revision;
    if found.owner != wanted.owner {
        return if adopt {
            Step::Replace { revision, drift: Vec::new() }
        } else {
            Step::Refuse(not_ours(wanted, found))
        };
    }
    let mut changed = Vec::new();
    if found.spec != wanted.spec {
        changed.push("spec");
    }
    if found.labels != wanted.labels {
        changed.push("labels");
    }
    match changed.is_empty() {
        true => Step::Nothing,
        false => Step::Replace { revision, drift: if accepted { changed } else { Vec::new() } },
    }
}

/// Whether the object goes with its declaration: only one that this operator keeps.
pub fn is_ours<S>(owner: &str, found: Option<&Found<S>>) -> bool {
    found.is_some_and(|found| found.owner == owner)
}

fn not_ours<S>(wanted: &Wanted<S>, found: &Found<S>) -> Problem {
    let whose = match found.owner.as_str() {
        "" => "was made elsewhere".to_owned(),
        owner => format!("is kept by {owner}"),
    };
    Problem::new(
        "NotOurs",
        format!(
            "the registry has {} of tenant {}, which {whose}; delete it there, or take it over with the annotation {ADOPT}=\"true\"",
            wanted.name, wanted.tenant
        ),
    )
}

#[cfg(test)]
mod tests {
    use drover_types::TenantId;

    use super::*;

    fn wanted(spec: u8) -> Wanted<u8> {
        let tenant = TenantId::new("home").expect("valid");
        Wanted { tenant, name: "d".into(), labels: Default::default(), spec, owner: "kubernetes".into() }
    }

    fn found(spec: u8, owner: &str) -> Found<u8> {
        Found { labels: Default::default(), spec, owner: owner.into(), revision: 7, generation: 1 }
    }

    #[test]
    fn what_is_missing_is_created_and_what_differs_is_replaced() {
        assert_eq!(plan(&wanted(1), None, false, false), Step::Create);
        assert_eq!(plan(&wanted(1), None, true, false), Step::Create);
        assert_eq!(plan(&wanted(1), Some(&found(1, "kubernetes")), true, false), Step::Nothing);
        let replaced = Step::Replace { revision: 7, drift: vec![] };
        assert_eq!(plan(&wanted(1), Some(&found(2, "kubernetes")), false, false), replaced);
    }

    #[test]
    fn what_differs_although_it_was_as_declared_is_drift() {
        let mut labelled = found(2, "kubernetes");
        labelled.labels.insert("room".into(), "cellar".into());
        let drift = Step::Replace { revision: 7, drift: vec!["spec", "labels"] };
        assert_eq!(plan(&wanted(1), Some(&labelled), true, false), drift);
    }

    #[test]
    fn what_is_anothers_is_left_alone_unless_it_is_to_be_taken_over() {
        for (owner, told) in [("", "was made elsewhere"), ("another", "is kept by another")] {
            let Step::Refuse(problem) = plan(&wanted(1), Some(&found(1, owner)), false, false) else {
                panic!("{owner}")
            };
            assert!(problem.reason == "NotOurs" && problem.message.contains(told), "{problem:?}");
            let taken = Step::Replace { revision: 7, drift: vec![] };
            assert_eq!(plan(&wanted(1), Some(&found(1, owner)), false, true), taken);
            assert!(!is_ours("kubernetes", Some(&found(1, owner))));
        }
        assert!(is_ours("kubernetes", Some(&found(1, "kubernetes"))));
        assert!(!is_ours::<u8>("kubernetes", None));
    }
}
