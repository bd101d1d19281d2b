//! The devices that observe, and the tasks that serve them: one of a device on this node, for the peer that came last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_types::{ApiError, DeviceKey, ErrorCode, TopicFilter};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::ear::Ear;
use super::endpoint::{Endpoint, Origin};
use super::observer::{self, Command, Start};
use crate::domain::coap::Peer;
use crate::domain::coap::block::Block;
use crate::domain::identity::Identity;
use crate::domain::link::{Link, Stop};

/// Registrations of one device that wait to be carried out.
const COMMANDS_MAX: usize = 8;
/// How often a task is asked: the first may be about to end, for it has nothing to observe any more.
const ATTEMPTS: usize = 2;

/// A task and how it is reached.
#[derive(Clone)]
struct Handle {
    peer: Peer,
    commands: mpsc::Sender<Command>,
    link: Arc<Link>,
}

/// The tasks there are.
#[derive(Default)]
struct Tasks {
    handles: HashMap<DeviceKey, Handle>,
    /// All of them were told to end, and none is to begin: nobody would tell it.
    stopped: bool,
}

/// The observing devices of this node.
pub struct Observers {
    tasks: Mutex<Tasks>,
    room: Arc<Semaphore>,
    max: usize,
}

impl Observers {
    /// None yet, at most `max` later.
    pub fn new(max: usize) -> Self {
        Self { tasks: Mutex::default(), room: Arc::new(Semaphore::new(max)), max }
    }

    /// Subscribes the device of `identity` to `filter`, for the peer and under the token of `origin`; the sequence number of
    /// the answer. Returns when every node knows of it.
    pub async fn observe(
        &self,
        endpoint: &Arc<Endpoint>,
        origin: &Origin,
        identity: &Arc<Identity>,
        filter: &TopicFilter,
        size: Option<Block>,
        retained: bool,
    ) -> Result<u32, ApiError> {
        let patience = endpoint.setup.patience;
        let late = || ApiError::new(ErrorCode::DeadlineExceeded, "the observation is not there yet; register again");
        for _ in 0..ATTEMPTS {
            let commands = self.commands(endpoint, origin, identity)?;
            let (answer, answered) = oneshot::channel();
            let (filter, token) = (filter.clone(), origin.token.clone());
            let command = Command::Observe { filter, token, size, retained, answer };
            let asking = async {
                commands.send(command).await.ok()?;
                answered.await.ok()
            };
            if let Some(answer) = timeout(patience, asking).await.map_err(|_| late())? {
                return answer;
            }
        }
        Err(ApiError::new(ErrorCode::Unavailable, "the observation ended; register again"))
    }

    /// Ends what the peer of `origin` observes under its token, if it does; its task is told within `patience`.
    pub async fn forget(&self, device: &DeviceKey, origin: &Origin, patience: Duration) -> Result<(), ApiError> {
        let handle = self.lock().handles.get(device).filter(|handle| handle.peer == origin.peer).cloned();
        let Some(handle) = handle else { return Ok(()) };
        let telling = handle.commands.send(Command::Forget { token: origin.token.clone() });
        let late = |_| ApiError::new(ErrorCode::DeadlineExceeded, "the observation may not be over yet; ask again");
        timeout(patience, telling).await.map(drop).map_err(late) // the task may have ended
    }

    /// All of them are to end, for the node does; from now on none begins.
    pub fn stop(&self) {
        let mut tasks = self.lock();
        tasks.stopped = true;
        tasks.handles.values().for_each(|handle| handle.link.stop(Stop::Drain));
    }

    /// The way to the task that serves this peer of the device; started if there is none. That of another peer ends when
    /// this one takes its session.
    fn commands(
        &self,
        endpoint: &Arc<Endpoint>,
        origin: &Origin,
        identity: &Arc<Identity>,
    ) -> Result<mpsc::Sender<Command>, ApiError> {
        let device = DeviceKey { tenant: identity.tenant.clone(), device: identity.device.clone() };
        let mut tasks = self.lock();
        if tasks.stopped {
            return Err(ApiError::new(ErrorCode::Unavailable, "the node stops; register again"));
        }
        let same = |handle: &&Handle| handle.peer == origin.peer && !handle.commands.is_closed();
        if let Some(handle) = tasks.handles.get(&device).filter(same) {
            return Ok(handle.commands.clone());
        }
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            let error =
                ApiError::new(ErrorCode::ResourceExhausted, "too many devices observe (ingress.coap.observers)");
            return Err(error.over(self.max, self.max + 1));
        };
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let ear = Ear::default();
        let link = ear.link.clone();
        let handle = Handle { peer: origin.peer, commands: commands.clone(), link: link.clone() };
        tasks.handles.insert(device.clone(), handle);
        drop(tasks);
        let start = Start {
            endpoint: endpoint.clone(),
            identity: identity.clone(),
            peer: origin.peer,
            commands: receiver,
            ear,
        };
        let observers = endpoint.setup.observers.clone();
        endpoint.tasks.spawn(async move {
            Box::pin(observer::run(start)).await;
            observers.ended(&device, &link);
            drop(permit);
        });
        Ok(commands)
    }

    fn ended(&self, device: &DeviceKey, link: &Arc<Link>) {
        let mut tasks = self.lock();
        if tasks.handles.get(device).is_some_and(|handle| Arc::ptr_eq(&handle.link, link)) {
            tasks.handles.remove(device);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
