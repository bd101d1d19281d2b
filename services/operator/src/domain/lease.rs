//! Who leads: the turns of a candidate at a Lease.
//!
//! Clocks of two machines are never compared: a candidate takes the Lease over when it has seen it unchanged for the
//! Lease's own duration by its own clock.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// How long a Lease holds without being renewed.
pub const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long leads no more: well before another may.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often a leader renews and a candidate looks.
pub const RENEW_EVERY: Duration = Duration::from_secs(4);

/// What a candidate remembers of a Lease between two looks.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    spec: LeaseSpec,
    /// When it was first seen so, since some moment of this process.
    since: Duration,
}

/// What a candidate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is free, or its own: write it.
    Lead,
    /// Another leads.
    Wait,
}

/// A look at the Lease at `now`, since some moment of this process.
pub fn observe(former: Option<Observed>, spec: &LeaseSpec, now: Duration) -> Observed {
    match former {
        Some(former) if former.spec == *spec => former,
        Some(_) | None => Observed { spec: spec.clone(), since: now },
    }
}

/// Whether `me` may lead by what it has observed.
pub fn turn(observed: &Observed, me: &str, now: Duration) -> Turn {
    let holder = observed.spec.holder_identity.as_deref().unwrap_or_default();
    let seconds = observed.spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
    let duration = seconds.map_or(DURATION, Duration::from_secs);
    if holder.is_empty() || holder == me || now.saturating_sub(observed.since) >= duration {
        Turn::Lead
    } else {
        Turn::Wait
    }
}

/// The Lease as its holder `me` writes it over `former`.
pub fn held(former: Option<&LeaseSpec>, me: &str, now: Timestamp) -> LeaseSpec {
    let mine = former.filter(|spec| spec.holder_identity.as_deref() == Some(me));
    let transitions = former.map_or(0, |spec| spec.lease_transitions.unwrap_or(0) + i32::from(mine.is_none()));
    LeaseSpec {
        holder_identity: Some(me.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: mine.and_then(|spec| spec.acquire_time.clone()).or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    }
}

/// The Lease as a leader leaves it, so that the next need not wait.
pub fn released(former: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec { holder_identity: None, renew_time: Some(MicroTime(now)), ..former.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn time(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_lease_of_another_is_waited_out_by_the_own_clock() {
        let spec = held(None, "a", time(0));
        let seen = observe(None, &spec, at(100));
        assert_eq!(turn(&seen, "b", at(114)), Turn::Wait);
        assert_eq!(turn(&seen, "b", at(115)), Turn::Lead);
        let renewed = observe(Some(seen.clone()), &held(Some(&spec), "a", time(-9_999)), at(114));
        assert_eq!(turn(&renewed, "b", at(128)), Turn::Wait, "a renewal counts whatever its clock says");
        assert_eq!(observe(Some(seen.clone()), &spec, at(110)), seen);
    }

    #[test]
    fn a_free_lease_and_the_own_one_are_taken_at_once() {
        let spec = held(None, "a", time(0));
        assert_eq!(turn(&observe(None, &spec, at(0)), "a", at(0)), Turn::Lead);
        let free = released(&spec, time(1));
        assert_eq!(turn(&observe(None, &free, at(0)), "b", at(0)), Turn::Lead);
        assert_eq!(turn(&observe(None, &LeaseSpec::default(), at(0)), "b", at(0)), Turn::Lead);
    }

    #[test]
    fn changes_of_hands_are_counted_and_the_time_of_taking_over_is_kept() {
        let first = held(None, "a", time(1));
        let renewed = held(Some(&first), "a", time(2));
        assert_eq!((renewed.lease_transitions, renewed.acquire_time.clone()), (Some(0), Some(MicroTime(time(1)))));
        let taken = held(Some(&renewed), "b", time(3));
        assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(1), Some(MicroTime(time(3)))));
    }
}
