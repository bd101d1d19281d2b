//! How fast connections are closed when the node stops: their clients come back elsewhere, and there not all at once.

use std::time::Duration;

use tokio::time::Instant;

use super::appends::Mailboxes;
use super::mailbox::Mail;

/// Connections are closed so many times a second.
const STEPS_PER_SECOND: u64 = 10;

/// The pace of a drain.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Connections closed a second, of all loops; 0: all at once.
    pub closes: u32,
    /// When connections are cut. Before that, when nine tenths of it are over, all that are left are asked to end.
    pub patience: Duration,
}

impl Pace {
    /// Has connections end; returns when all have been asked to. Those within the process, whose loop is the last one,
    /// wait for the end where there are others.
    pub async fn close(self, boxes: &Mailboxes) {
        boxes.iter().for_each(|mailbox| mailbox.post(Mail::Shut));
        let sockets = &boxes[..boxes.len().saturating_sub(1).max(1)];
        if self.closes > 0 {
            let last = Instant::now() + self.patience * 9 / 10;
            let mut steps = tokio::time::interval(Duration::from_millis(1_000 / STEPS_PER_SECOND));
            let mut step = 0;
            while Instant::now() < last {
                steps.tick().await;
                for (number, mailbox) in sockets.iter().enumerate() {
                    let due = |steps| self.due(number, sockets.len(), steps);
                    let count = due(step + 1) - due(step);
                    if count > 0 {
                        mailbox.post(Mail::Close(count));
                    }
                }
                step += 1;
            }
        }
        boxes.iter().for_each(|mailbox| mailbox.post(Mail::Drain));
    }

    /// How many connections of loop `number` of `loops` are to be closed in the first `steps`. Connections are with the
    /// loops in turn, so each has its share.
    fn due(self, number: usize, loops: usize, steps: u64) -> usize {
        let all = usize::try_from(u64::from(self.closes) * steps / STEPS_PER_SECOND).unwrap_or(usize::MAX);
        all / loops + usize::from(number < all % loops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::loops::mailbox::Mailbox;

    fn boxes(count: usize) -> Mailboxes {
        (0..count).map(|number| Mailbox::new(number, || ())).collect()
    }

    /// How many connections were to be closed, and whether all were after that.
    fn told(boxes: &Mailboxes) -> (usize, bool) {
        let mail: Vec<Mail> = boxes.iter().flat_map(|mailbox| mailbox.take(Vec::new())).collect();
        let counts = mail.iter().filter_map(|mail| if let Mail::Close(count) = mail { Some(*count) } else { None });
        (counts.sum(), mail.iter().any(|mail| matches!(mail, Mail::Drain)))
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_closed_a_second_and_the_rest_before_the_end() {
        let boxes = boxes(3);
        let pace = Pace { closes: 25, patience: Duration::from_secs(10) };
        let closing = tokio::spawn({
            let boxes = boxes.clone();
            async move { pace.close(&boxes).await }
        });
        let mut closed = 0;
        for second in 1..9 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (count, all) = told(&boxes);
            closed += count;
            assert!(!all && (25 * second..=25 * second + 3).contains(&closed), "{closed} after {second} s");
        }
        closing.await.expect("no panic");
        assert!(told(&boxes).1, "what is left is closed in time");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_all_are_closed_at_once() {
        let boxes = boxes(2);
        Pace { closes: 0, patience: Duration::from_secs(10) }.close(&boxes).await;
        assert_eq!(told(&boxes), (0, true));
    }
}
