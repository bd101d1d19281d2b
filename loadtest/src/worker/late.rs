//! What a device's network does to what it writes: bytes come late and in their order, datagrams are lost. What it reads is
//! not touched: the sum of both ways is what a device and its server see.

use std::collections::VecDeque;

use crate::scenario::Network;

/// How much later bytes of a stream come whose packet was lost, in microseconds: TCP's first timeout (RFC 6298 section 2).
const SENT_AGAIN_US: u64 = 1_000_000;

/// Bytes under way, and when each part is through; the next first.
#[derive(Default)]
pub struct Late(VecDeque<(u64, Vec<u8>)>);

impl Late {
    /// Takes bytes that are written now; when they will be through, `None` where they are lost.
    pub fn keep(
        &mut self,
        bytes: Vec<u8>,
        network: &Network,
        is_datagram: bool,
        now_us: u64,
        random: &mut fastrand::Rng,
    ) -> Option<u64> {
        let is_lost = network.loss > 0.0 && random.f64() < network.loss;
        if is_lost && is_datagram {
            return None;
        }
        let [least, most] = network.lag;
        let again_us = if is_lost { SENT_AGAIN_US } else { 0 };
        let due_us = now_us + random.u64(least.us()..=most.us()) + again_us;
        let due_us = self.0.back().map_or(due_us, |(before_us, _)| due_us.max(*before_us));
        self.0.push_back((due_us, bytes));
        Some(due_us)
    }

    /// Appends what is through by now.
    pub fn take(&mut self, now_us: u64, into: &mut Vec<u8>) {
        while self.0.front().is_some_and(|(due_us, _)| *due_us <= now_us)
            && let Some((_, bytes)) = self.0.pop_front()
        {
            into.extend_from_slice(&bytes);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Span;

    #[test]
    fn bytes_come_late_and_in_their_order_and_a_lost_packet_holds_up_those_behind_it() {
        let network = Network { lag: [Span::from_us(100), Span::from_us(900)], loss: 0.3 };
        let (mut late, mut random) = (Late::default(), fastrand::Rng::with_seed(3));
        let dues: Vec<u64> = (0..100_u8)
            .map(|number| late.keep(vec![number], &network, false, 1_000, &mut random).expect("no stream loses bytes"))
            .collect();
        assert!(dues.is_sorted() && dues[0] >= 1_100, "{dues:?}");
        assert!(dues[99] >= 1_000 + SENT_AGAIN_US, "{dues:?}");
        let mut through = Vec::new();
        late.take(1_099, &mut through);
        assert!(through.is_empty() && !late.is_empty());
        late.take(10_000_000, &mut through);
        assert!(late.is_empty() && through.iter().copied().eq(0..100), "{through:?}");
    }

    #[test]
    fn lost_datagrams_are_gone() {
        let network = Network { lag: [Span::default(); 2], loss: 0.5 };
        let (mut late, mut random) = (Late::default(), fastrand::Rng::with_seed(3));
        let kept = (0..1_000).filter(|_| late.keep(vec![0], &network, true, 0, &mut random).is_some()).count();
        assert!((400..600).contains(&kept), "{kept}");
    }
}
