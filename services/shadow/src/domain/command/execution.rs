//! A command on its way: what is known of it, and in which state that is.

use bytes::Bytes;
use drover_bus::Offset;
use drover_types::RecordId;
use drover_types::limits::{COMMANDS_FINISHED_MS_MAX, COMMANDS_FINISHED_PER_DEVICE_MAX, COMMANDS_OPEN_PER_DEVICE_MAX};

/// Place of a command among those of its device. A new command takes a free one, or that of the oldest finished one: so what is
/// kept of a device is bounded without anything being deleted.
pub type Slot = u8;

/// Places of one device. However many commands are open, the newest finished ones have theirs.
pub const SLOTS: Slot = 200;
const _: () = assert!(COMMANDS_OPEN_PER_DEVICE_MAX + COMMANDS_FINISHED_PER_DEVICE_MAX <= SLOTS as usize);

/// All of a command but what is large. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub id: RecordId,
    pub slot: Slot,
    /// Of its record in the log.
    pub created_at: Offset,
    pub created_ms: u64,
    pub expires_ms: u64,
    /// When the ingress had taken it.
    pub sent_ms: Option<u64>,
    pub answered: Option<Answered>,
}

/// The last answer of the device that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// 100 to 599, as in HTTP.
    pub code: u16,
    pub time_ms: u64,
}

/// What is large of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    pub name: String,
    /// JSON.
    pub payload: Bytes,
    /// Of the last answer; empty before there is one.
    pub response: Bytes,
}

/// A command as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    pub head: Head,
    pub body: Body,
}

/// In which state a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Queued,
    Sent,
    InProgress,
    Succeeded,
    Rejected,
    Failed,
    TimedOut,
}

impl Status {
    fn of_code(code: u16) -> Self {
        match code {
            ..200 => Self::InProgress,
            200..300 => Self::Succeeded,
            400..500 => Self::Rejected,
            300..400 | 500.. => Self::Failed,
        }
    }

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Sent | Self::InProgress => false,
            Self::Succeeded | Self::Rejected | Self::Failed | Self::TimedOut => true,
        }
    }
}

impl Answered {
    /// Whether no other answer counts behind it.
    pub fn is_final(&self) -> bool {
        Status::of_code(self.code).is_final()
    }
}

impl Head {
    /// The state at `now_ms`: that the time is over follows from the clock alone.
    pub fn status(&self, now_ms: u64) -> Status {
        match self.answered {
            Some(answered) if answered.is_final() => Status::of_code(answered.code),
            Some(_) | None if now_ms > self.expires_ms => Status::TimedOut,
            Some(answered) => Status::of_code(answered.code),
            None if self.sent_ms.is_some() => Status::Sent,
            None => Status::Queued,
        }
    }

    /// When the state at `now_ms` began.
    pub fn updated_ms(&self, now_ms: u64) -> u64 {
        match (self.status(now_ms), self.answered) {
            (Status::TimedOut, _) => self.expires_ms,
            (_, Some(answered)) => answered.time_ms,
            (_, None) => self.sent_ms.unwrap_or(self.created_ms),
        }
    }

    /// Whether it still has to be handed to the ingress at `now_ms`.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.status(now_ms) == Status::Queued
    }

    /// Whether `other` is of the same command: one that was forgotten may have been made again under its id.
    pub fn is_same(&self, other: &Head) -> bool {
        (self.id, self.created_at) == (other.id, other.created_at)
    }

    fn is_open(&self, now_ms: u64) -> bool {
        !self.status(now_ms).is_final()
    }

    /// By which commands are told, the newest first.
    pub fn age(&self) -> (u64, RecordId) {
        (self.created_ms, self.id)
    }
}

/// Of commands whose deadlines are before this nothing is told any more at `now_ms`: they had ended by then, one way or another.
pub fn forgotten_before_ms(now_ms: u64) -> u64 {
    now_ms.saturating_sub(COMMANDS_FINISHED_MS_MAX)
}

/// What is told of a device's commands at `now_ms`, the newest first: those that are open, and the newest finished ones as long as
/// they are kept.
pub fn shown(mut heads: Vec<Head>, now_ms: u64) -> Vec<Head> {
    heads.sort_by_key(|head| std::cmp::Reverse(head.age()));
    let mut finished = 0;
    heads.retain(|head| {
        if head.is_open(now_ms) {
            return true;
        }
        let is_kept = head.updated_ms(now_ms).saturating_add(COMMANDS_FINISHED_MS_MAX) > now_ms;
        finished += usize::from(is_kept);
        is_kept && finished <= COMMANDS_FINISHED_PER_DEVICE_MAX
    });
    heads
}

/// The place that a new command gets at `now_ms`. The error: how many are open, over which there is none.
pub fn room(heads: &[Head], now_ms: u64) -> Result<Slot, usize> {
    let open = heads.iter().filter(|head| head.is_open(now_ms)).count();
    if open >= COMMANDS_OPEN_PER_DEVICE_MAX {
        return Err(open);
    }
    let free = (0..SLOTS).find(|slot| heads.iter().all(|head| head.slot != *slot));
    let finished = heads.iter().filter(|head| !head.is_open(now_ms));
    let oldest = || finished.min_by_key(|head| head.created_at).map(|head| head.slot);
    free.or_else(oldest).ok_or(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;
    const EXPIRES_MS: u64 = NOW_MS + 60_000;

    fn head(number: u8) -> Head {
        Head {
            id: RecordId([number; 16]),
            slot: number,
            created_at: number.into(),
            created_ms: NOW_MS + u64::from(number),
            expires_ms: EXPIRES_MS,
            sent_ms: None,
            answered: None,
        }
    }

    fn answered(code: u16) -> Head {
        Head { sent_ms: Some(NOW_MS + 1), answered: Some(Answered { code, time_ms: NOW_MS + 2 }), ..head(0) }
    }

    #[test]
    fn a_state_follows_from_the_last_answer_and_the_clock() {
        let sent = Head { sent_ms: Some(NOW_MS + 1), ..head(0) };
        for (head, status, updated_ms) in [
            (head(0), Status::Queued, NOW_MS),
            (sent, Status::Sent, NOW_MS + 1),
            (answered(100), Status::InProgress, NOW_MS + 2),
            (answered(199), Status::InProgress, NOW_MS + 2),
        ] {
            assert_eq!((head.status(EXPIRES_MS), head.updated_ms(EXPIRES_MS)), (status, updated_ms));
            let late = EXPIRES_MS + 1;
            assert_eq!((head.status(late), head.updated_ms(late)), (Status::TimedOut, EXPIRES_MS));
        }
        for (code, status) in [
            (200, Status::Succeeded),
            (299, Status::Succeeded),
            (300, Status::Failed),
            (400, Status::Rejected),
            (499, Status::Rejected),
            (500, Status::Failed),
            (599, Status::Failed),
        ] {
            assert_eq!(answered(code).status(EXPIRES_MS + 1), status, "{code}");
        }
    }

    #[test]
    fn finished_commands_are_told_up_to_their_number_and_age_and_open_ones_always() {
        let finished = |number| Head { slot: number, id: RecordId([number; 16]), ..answered(200) };
        let heads: Vec<Head> = (0..SLOTS).map(finished).collect();
        let told = shown(heads, NOW_MS + 10);
        assert_eq!(told.len(), COMMANDS_FINISHED_PER_DEVICE_MAX);
        assert_eq!(told.first().map(|head| head.id), Some(RecordId([SLOTS - 1; 16])), "the newest first");
        let ends = NOW_MS + 2 + COMMANDS_FINISHED_MS_MAX;
        let number = |now_ms| shown(vec![finished(1)], now_ms).len();
        assert_eq!((number(ends - 1), number(ends)), (1, 0));
        assert_eq!(shown(vec![head(1), head(2)], EXPIRES_MS).len(), 2);
    }

    #[test]
    fn nothing_that_is_told_is_forgotten() {
        for head in
            [head(1), answered(100), Head { answered: Some(Answered { code: 200, time_ms: EXPIRES_MS }), ..head(1) }]
        {
            let told = |now_ms| !shown(vec![head.clone()], now_ms).is_empty();
            let last = EXPIRES_MS + COMMANDS_FINISHED_MS_MAX - 1;
            assert!(told(last) && !told(last + 1));
            assert!(head.expires_ms >= forgotten_before_ms(last));
            assert!(head.expires_ms < forgotten_before_ms(last + 2));
        }
    }

    #[test]
    fn a_new_command_takes_a_free_place_or_that_of_the_oldest_finished_one() {
        assert_eq!(room(&[], NOW_MS), Ok(0));
        assert_eq!(room(&[head(0), head(2)], NOW_MS), Ok(1));
        let limit = u8::try_from(COMMANDS_OPEN_PER_DEVICE_MAX).expect("small");
        let open: Vec<Head> = (0..limit).map(head).collect();
        assert_eq!(room(&open[1..], NOW_MS), Ok(0));
        assert_eq!(room(&open, NOW_MS), Err(100));
        assert_eq!(room(&open, EXPIRES_MS + 1), Ok(limit), "they have timed out");
        let finished = |slot: u8| Head { slot, created_at: (SLOTS - slot).into(), ..answered(200) };
        let full: Vec<Head> = (0..SLOTS).map(finished).collect();
        assert_eq!(room(&full, NOW_MS), Ok(SLOTS - 1), "the one that was made first");
    }
}
