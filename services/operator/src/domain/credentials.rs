//! The credentials of a device: which have to be made, which renewed, and which are left over.

use std::collections::BTreeSet;

use super::problem::Problem;
use super::secret::Seen;
use crate::ports::{Credential, CredentialKind};

/// How far a certificate's lifetime may be from what is declared before it counts as another, in milliseconds: the registry
/// reads its clock twice when it makes one.
const LIFETIME_SLACK_MS: u64 = 60_000;

/// A credential as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedCredential {
    /// Name of the Secret.
    pub secret: String,
    pub kind: CredentialKind,
    /// Seconds until it ends; 0: it does not.
    pub duration_s: u64,
}

/// What has to be done, in this order: first issue, then revoke what no Secret refers to any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub issue: Vec<Issue>,
    /// Ids of credentials that this operator has made and nothing refers to; none while a Secret is refused.
    pub revoke: Vec<String>,
    /// Secrets that are not ours.
    pub refused: Option<Problem>,
    /// When the next certificate is to be renewed, milliseconds since the Unix epoch.
    pub renew_at_ms: Option<u64>,
}

/// A credential that has to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    pub wanted: WantedCredential,
    /// The one it takes over from, which is good until its end.
    pub previous: Option<String>,
    /// Of the Secret that is to be written over; `None`: there is none yet.
    pub resource_version: Option<String>,
    /// Whether it is a renewal before the end.
    pub is_renewal: bool,
}

/// Compares declared credentials, each with what is there under the name of its Secret, with those in the registry.
/// `owner` marks those that are this operator's to take care of.
pub fn plan(wanted: &[(WantedCredential, Seen)], known: &[Credential], owner: &str, now_ms: u64) -> Plan {
    let mut plan = Plan::default();
    let mut referred = BTreeSet::new();
    for (wanted, seen) in wanted {
        let kept = match seen {
            Seen::Foreign => {
                plan.refused.get_or_insert_with(|| foreign(&wanted.secret));
                continue;
            }
            Seen::Nothing => None,
            Seen::Ours(kept) => Some(kept),
        };
        let id = kept.and_then(|kept| kept.credential.as_deref());
        let current = known.iter().find(|c| Some(c.id.as_str()) == id && is_as_wanted(c, wanted));
        let renew_at_ms = current.and_then(renew_at_ms);
        referred.extend(current.map(|credential| credential.id.clone()));
        if current.is_some() && renew_at_ms.is_none_or(|at| now_ms < at) {
            referred.extend(kept.and_then(|kept| kept.previous.clone()));
            plan.renew_at_ms = [plan.renew_at_ms, renew_at_ms].into_iter().flatten().min();
            continue;
        }
        plan.issue.push(Issue {
            wanted: wanted.clone(),
            previous: current.map(|credential| credential.id.clone()),
            resource_version: kept.map(|kept| kept.resource_version.clone()),
            is_renewal: current.is_some(),
        });
    }
    // The device may still use what a refused Secret held before it became another's: nothing takes its place.
    if plan.refused.is_none() {
        let left_over = known.iter().filter(|c| c.owner == owner && !referred.contains(&c.id));
        plan.revoke = left_over.map(|credential| credential.id.clone()).collect();
    }
    plan
}

fn is_as_wanted(credential: &Credential, wanted: &WantedCredential) -> bool {
    let lifetime_ms = credential.expires_ms.map_or(0, |end| end.saturating_sub(credential.created_ms));
    credential.kind == wanted.kind && lifetime_ms.abs_diff(wanted.duration_s * 1000) <= LIFETIME_SLACK_MS
}

/// A credential is renewed when a third of its lifetime is left.
fn renew_at_ms(credential: &Credential) -> Option<u64> {
    let end = credential.expires_ms?;
    Some(end - end.saturating_sub(credential.created_ms) / 3)
}

fn foreign(name: &str) -> Problem {
    Problem::new(
        "SecretNotOurs",
        format!("Secret {name} exists and was not made for this device; choose another secretName, or delete it"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::secret::Kept;
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn certificate() -> WantedCredential {
        WantedCredential { secret: "s".into(), kind: CredentialKind::Certificate, duration_s: 9 * 3600 }
    }

    fn token() -> WantedCredential {
        WantedCredential { secret: "t".into(), kind: CredentialKind::Token, duration_s: 0 }
    }

    fn known(id: &str, wanted: &WantedCredential, owner: &str) -> Credential {
        let expires_ms = Some(wanted.duration_s * 1000).filter(|ms| *ms > 0);
        Credential { id: id.into(), kind: wanted.kind, owner: owner.into(), created_ms: 0, expires_ms }
    }

    fn holding(id: &str, previous: Option<&str>) -> Seen {
        let previous = previous.map(String::from);
        Seen::Ours(Kept { credential: Some(id.into()), previous, resource_version: "5".into() })
    }

    fn issued(plan: &Plan) -> Vec<(&str, Option<&str>, bool)> {
        plan.issue.iter().map(|i| (i.wanted.secret.as_str(), i.previous.as_deref(), i.is_renewal)).collect()
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_there_is_kept() {
        let first = plan(&[(token(), Seen::Nothing), (certificate(), Seen::Nothing)], &[], "k", 0);
        assert_eq!(issued(&first), [("t", None, false), ("s", None, false)]);
        assert_eq!(first.issue[0].resource_version, None);
        let all = [known("c1", &token(), "k"), known("c2", &certificate(), "k")];
        let wanted = [(token(), holding("c1", None)), (certificate(), holding("c2", None))];
        let second = plan(&wanted, &all, "k", 0);
        assert_eq!(second, Plan { renew_at_ms: Some(6 * HOUR_MS), ..Plan::default() });
    }

    #[test]
    fn what_nothing_refers_to_is_revoked_and_what_others_have_made_is_not() {
        let all = [known("c1", &token(), "k"), known("stray", &token(), "k"), known("by-hand", &token(), "")];
        assert_eq!(plan(&[(token(), holding("c1", None))], &all, "k", 0).revoke, ["stray"]);
        let after_deletion = plan(&[(token(), Seen::Nothing)], &all, "k", 0);
        assert_eq!(
            (issued(&after_deletion).len(), after_deletion.revoke),
            (1, vec!["c1".to_owned(), "stray".to_owned()])
        );
        assert_eq!(plan(&[], &all, "k", 0).revoke, ["c1", "stray"]);
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_time_is_left_and_the_former_stays_to_its_end() {
        let wanted = [(certificate(), holding("c1", Some("c0")))];
        let all = [known("c0", &certificate(), "k"), known("c1", &certificate(), "k")];
        let before = plan(&wanted, &all, "k", 6 * HOUR_MS - 1);
        assert_eq!((before.issue.len(), before.revoke.len()), (0, 0));
        let at = plan(&wanted, &all, "k", 6 * HOUR_MS);
        assert_eq!(issued(&at), [("s", Some("c1"), true)]);
        assert_eq!(at.issue[0].resource_version.as_deref(), Some("5"));
        assert_eq!(at.revoke, ["c0"], "the one before the former has served");
    }

    #[test]
    fn another_duration_another_kind_or_a_revoked_credential_is_a_new_one() {
        let longer = WantedCredential { duration_s: 18 * 3600, ..certificate() };
        let all = [known("c1", &certificate(), "k")];
        let plan_of =
            |wanted: WantedCredential, all: &[Credential]| plan(&[(wanted, holding("c1", None))], all, "k", 0);
        let changed = plan_of(longer, &all);
        assert_eq!(issued(&changed), [("s", None, false)]);
        assert_eq!(changed.revoke, ["c1"]);
        assert_eq!(plan_of(token(), &all).issue.len(), 1);
        assert_eq!(plan_of(certificate(), &[]).issue.len(), 1, "revoked by REST: the device gets another");
    }

    #[test]
    fn a_secret_of_somebody_else_is_refused_and_the_others_are_made() {
        let all = [known("c1", &certificate(), "k")];
        let plan = plan(&[(certificate(), Seen::Foreign), (token(), Seen::Nothing)], &all, "k", 0);
        assert_eq!(issued(&plan), [("t", None, false)]);
        assert!(plan.revoke.is_empty(), "nothing takes the place of c1, which the Secret may have held");
        let refused = plan.refused.expect("refused");
        assert!(refused.reason == "SecretNotOurs" && refused.message.contains("Secret s "), "{refused:?}");
    }
}
