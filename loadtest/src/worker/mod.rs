//! One worker: a share of the devices, on one thread, in one loop over epoll.
//!
//! It gets its orders as JSON, and hands back one line of JSON a second. The rule that keeps it simple: alarms say what
//! is due, readiness says what a socket can do, and both end in a method of a device.

mod coap;
mod device;
mod hands;
mod http;
mod journal;
mod late;
mod link;
mod mqtt;
mod plan;
mod schedule;
mod socket;

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

pub use self::coap::PAYLOAD_BYTES_MAX as COAP_PAYLOAD_BYTES_MAX;
use self::device::{Device, Phase};
use self::hands::{Alarm, Hands, Timers};
use self::journal::Journal;
pub use self::journal::Numbered;
use self::link::Link;
use self::plan::Plan;
use self::socket::Selector;
use crate::clock::Clock;
use crate::payload::random;
use crate::scenario::{Scenario, Storm, Timing};
use crate::tally::Tally;

/// Connections that a worker opens at once; others wait, and their latency counts from when they were due.
const CONNECTING_MAX: usize = 256;
/// Alarms of one turn; sockets are waiting.
const ALARMS_MAX: usize = 4_096;
/// The worker is done when nothing is in flight and nothing has come for this long, in microseconds.
const QUIET_US: u64 = 2_000_000;
const SECOND_US: u64 = 1_000_000;

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Orders {
    pub scenario: Scenario,
    /// Which of how many.
    pub worker: u64,
    pub workers: u64,
    /// When the run starts, in microseconds since 1970.
    pub start_unix_us: u64,
    /// Where to keep the books, if they are kept.
    pub journal: Option<PathBuf>,
}

/// Runs to the end, and says every second on `report` what has happened.
pub fn run(orders: &Orders, report: &mut impl Write) -> anyhow::Result<()> {
    raise_descriptors();
    let mut worker = Worker::new(orders)?;
    while !worker.is_done() {
        worker.alarms();
        worker.storm();
        worker.connect();
        worker.second(report)?;
        worker.sockets()?;
    }
    worker.end(report)
}

/// As many descriptors as the system allows.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed, connecting will say so.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
}

struct Worker {
    devices: Vec<Device>,
    hands: Hands,
    /// Those due to connect.
    queue: VecDeque<u32>,
    /// Those to come, the first first.
    storms: VecDeque<Storm>,
    /// Connections that their devices have forgotten, and the server has not; at most one for each device and storm.
    half_open: Vec<Link>,
    ready: Vec<u32>,
    /// Seconds told.
    told: u64,
    /// When a message has come last, to the second.
    received_us: u64,
    settled_by_us: u64,
    /// Whether it may end before that, once nothing moves any more; not where others are to get everything first.
    ends_early: bool,
    has_published: bool,
}

impl Worker {
    fn new(orders: &Orders) -> anyhow::Result<Self> {
        let Orders { scenario, worker, workers, .. } = orders;
        let tally = Tally::start();
        let plans = (0..scenario.fleets.len()).map(|number| Plan::new(scenario, number).map(Rc::new));
        let plans: Vec<Rc<Plan>> = plans.collect::<anyhow::Result<_>>()?;
        let journal = orders.journal.as_deref().map(Journal::create).transpose().context("the ledger's file")?;
        let (ends_us, settled_by_us) = scenario.ends_us();
        let mut hands = Hands {
            selector: Selector::new()?,
            clock: Clock::start(orders.start_unix_us),
            now_us: 0,
            ends_us,
            plans,
            timers: Timers::default(),
            tally,
            journal,
            input: Vec::new(),
            output: Vec::new(),
            connecting: 0,
            again: Vec::new(),
            random: random(scenario.seed, scenario.fleets.len(), u32::try_from(*worker)?),
        };
        let mut devices = Vec::with_capacity((scenario.devices() / workers + 1) as usize);
        for plan in hands.plans.clone() {
            for number in
                (0..plan.fleet.devices).filter(|number| (plan.before + u64::from(*number)) % workers == *worker)
            {
                let index = devices.len() as u32;
                let device = Device::new(&plan, number, index);
                schedule::begin(&device, index, &plan, &mut hands);
                devices.push(device);
            }
        }
        let mut storms = scenario.storms.clone();
        storms.sort_by_key(|storm| storm.at);
        Ok(Self {
            devices,
            hands,
            queue: VecDeque::new(),
            storms: storms.into(),
            half_open: Vec::new(),
            ready: Vec::new(),
            told: 0,
            received_us: 0,
            settled_by_us,
            ends_early: !scenario.ledger,
            has_published: false,
        })
    }

    /// Does what is due.
    fn alarms(&mut self) {
        self.hands.refresh();
        for _ in 0..ALARMS_MAX {
            let Some((due_us, index, alarm)) = self.hands.timers.take(self.hands.now_us) else { return };
            let device = &mut self.devices[index as usize];
            match alarm {
                Alarm::Connect if matches!(device.phase, Phase::Absent | Phase::Away) => {
                    device.phase = Phase::Queued;
                    self.queue.push_back(index);
                }
                Alarm::Measure if due_us < self.hands.ends_us => {
                    schedule::measure(device, index, due_us, &mut self.hands);
                }
                Alarm::Upload if due_us < self.hands.ends_us => {
                    schedule::upload(device, index, due_us, &mut self.hands);
                }
                Alarm::Leave => device.leave(index, &mut self.hands),
                Alarm::Through => device.through(&mut self.hands),
                Alarm::Connect | Alarm::Measure | Alarm::Upload => {}
            }
        }
    }

    /// Takes the network away from those whom a storm that is due names.
    fn storm(&mut self) {
        let now_us = self.hands.now_us;
        if self.storms.front().is_none_or(|storm| storm.at.us() > now_us) {
            return;
        }
        let Some(storm) = self.storms.pop_front() else { return };
        for (index, device) in self.devices.iter_mut().enumerate() {
            let is_meant = storm.fleets.is_empty() || storm.fleets.contains(&device.plan(&self.hands).fleet.name);
            if !is_meant || !matches!(device.phase, Phase::Up | Phase::Greeting | Phase::Opening) {
                continue;
            }
            if storm.half_open {
                self.half_open.push(std::mem::take(&mut device.link));
            }
            device.cut(&mut self.hands);
            let back_us = now_us + storm.away.us() + self.hands.random.u64(0..=storm.over.us());
            device.due_us = back_us;
            self.hands.timers.set(back_us, index as u32, Alarm::Connect);
        }
    }

    /// Opens connections, as many at once as is allowed.
    fn connect(&mut self) {
        while self.hands.connecting < CONNECTING_MAX
            && let Some(index) = self.queue.pop_front()
        {
            self.devices[index as usize].open(index, &mut self.hands);
        }
    }

    /// What is to be done once a second.
    fn second(&mut self, report: &mut impl Write) -> anyhow::Result<()> {
        let second = self.hands.now_us / SECOND_US;
        if second <= self.told {
            return Ok(());
        }
        for (index, device) in self.devices.iter_mut().enumerate() {
            device.tick(index as u32, &mut self.hands);
        }
        if !self.hands.is_publishing() && !self.has_published {
            self.has_published = true;
            self.upload_rest();
        }
        self.tell(second - 1, false, report)?;
        self.told = second;
        Ok(())
    }

    /// What was measured and not uploaded when the time is over goes out now.
    fn upload_rest(&mut self) {
        for (index, device) in self.devices.iter_mut().enumerate() {
            let plan = device.plan(&self.hands);
            if plan.sends.as_ref().is_some_and(|sends| sends.publish.timing == Timing::Batch) {
                schedule::upload(device, index as u32, self.hands.now_us, &mut self.hands);
            }
        }
    }

    fn tell(&mut self, second: u64, is_last: bool, report: &mut impl Write) -> anyhow::Result<()> {
        self.hands.book(Journal::flush);
        let told = self.hands.tally.drain(second, is_last);
        if told.counts.received > 0 {
            self.received_us = self.hands.now_us;
        }
        serde_json::to_writer(&mut *report, &told)?;
        report.write_all(b"\n")?;
        Ok(report.flush()?)
    }

    /// Waits for sockets until the next alarm or second, and gives each that is ready its turn.
    fn sockets(&mut self) -> anyhow::Result<()> {
        self.hands.refresh();
        let next_second_us = (self.told + 1) * SECOND_US;
        let next_us = self.hands.timers.next_us().unwrap_or(u64::MAX).min(next_second_us);
        let next_us = self.storms.front().map_or(next_us, |storm| next_us.min(storm.at.us()));
        let is_busy = !self.hands.again.is_empty();
        let longest_us = if is_busy { 0 } else { next_us.saturating_sub(self.hands.now_us) };
        self.ready.clear();
        self.ready.append(&mut self.hands.again);
        self.hands.selector.wait(longest_us, &mut self.ready)?;
        self.hands.refresh();
        for index in &self.ready {
            self.devices[*index as usize].turn(*index, &mut self.hands);
        }
        Ok(())
    }

    /// Whether the time is over, and everything that was sent is answered or will not be.
    fn is_done(&self) -> bool {
        let Hands { now_us, ends_us, .. } = self.hands;
        if now_us < ends_us || !self.has_published {
            return false;
        }
        let is_quiet = now_us > self.received_us.max(ends_us) + QUIET_US;
        now_us >= self.settled_by_us || is_quiet && self.ends_early && !self.devices.iter().any(Device::is_waited_for)
    }

    /// Says goodbye, and what is left open.
    fn end(mut self, report: &mut impl Write) -> anyhow::Result<()> {
        self.hands.refresh();
        let connected = self.hands.tally.connected;
        for device in &mut self.devices {
            schedule::settle(device, &mut self.hands);
            let plan = device.plan(&self.hands);
            device.goodbye(&plan, &mut self.hands);
            device.cut(&mut self.hands);
        }
        self.hands.tally.connected = connected;
        self.tell(self.hands.now_us / SECOND_US, true, report)
    }
}
