//! What every adapter of [`Owners`] must do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_types::{ClientId, TenantId};
use futures::future::join_all;

use crate::ports::{Former, Owner, Owners, OwnersError, Taken};

/// Calls made at the same time.
const AT_ONCE: usize = 8;
/// Tries of a call that may be made again, and the wait between two: many at once wear each other out.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);

/// Owners to test.
#[async_trait]
pub trait Factory: Send + Sync {
    /// The owners as the node of this name has them at its `boot`th start, over what all of this factory share.
    async fn open(&self, node: &str, boot: u32) -> Arc<dyn Owners>;
}

fn client(name: &str) -> ClientId {
    ClientId::new(name).expect("valid")
}

async fn take(owners: &dyn Owners, name: &str) -> Taken {
    for _ in 0..TRIES {
        match owners.take(&TenantId::default_tenant(), &client(name)).await {
            Ok(taken) => return taken,
            Err(OwnersError::Unavailable { .. }) => tokio::time::sleep(PAUSE).await,
            Err(error @ OwnersError::Corrupt { .. }) => panic!("{error}"),
        }
    }
    panic!("{name} cannot be taken");
}

/// What holds for owners that one node uses.
pub async fn alone(factory: &dyn Factory) {
    let owners = factory.open("n", 1).await;
    let (first, second) = (take(&*owners, "c").await, take(&*owners, "c").await);
    assert!(second.epoch > first.epoch && first.epoch > 0);
    assert!(first.former != Former::Node("n".into()) && second.former != Former::Node("n".into()));
    let taken = join_all((0..AT_ONCE).map(|_| take(&*owners, "c"))).await;
    let epochs: BTreeSet<u64> = taken.iter().map(|taken| taken.epoch).collect();
    assert_eq!(epochs.len(), AT_ONCE, "none comes twice");
    assert!(epochs.iter().all(|epoch| *epoch > second.epoch));
    let tenant = TenantId::default_tenant();
    let owner = owners.owner(&tenant, &client("c")).await.expect("known");
    let taken = owners.take_if(&tenant, &client("c"), owner).await.expect("taken").expect("nobody else is there");
    assert!(epochs.iter().all(|epoch| taken > *epoch));
    drop(owners);
    let again = take(&*factory.open("n", 2).await, "c").await;
    assert!(epochs.iter().all(|epoch| again.epoch > *epoch), "also after a restart");
}

/// What holds besides for owners that several nodes share.
pub async fn shared(factory: &dyn Factory) {
    let (a, b) = (factory.open("a", 9).await, factory.open("b", 1).await);
    let mut last = 0;
    for (owners, former) in [(&a, None), (&b, Some("a")), (&b, None), (&a, Some("b")), (&b, Some("a"))] {
        let taken = take(&**owners, "moving").await;
        assert!(taken.epoch > last, "whichever node, whatever its boot");
        assert_eq!(taken.former, former.map_or(Former::Here, |node| Former::Node(node.to_owned())));
        last = taken.epoch;
    }
    one_of_those_who_see_the_same_owner_takes_its_session(&*a, &*b).await;
    let other = a.take(&TenantId::new("other").expect("valid"), &client("moving")).await.expect("taken");
    assert_eq!(other.former, Former::Here, "it is another tenant's");

    let takes = (0..AT_ONCE).map(|i| {
        let (node, owners) = if i % 2 == 0 { ("a", &a) } else { ("b", &b) };
        async move { (node, take(&**owners, "contended").await) }
    });
    let takes = join_all(takes).await;
    let epochs: BTreeSet<u64> = takes.iter().map(|(_, taken)| taken.epoch).collect();
    assert_eq!(epochs.len(), AT_ONCE, "none comes twice");
    // A call whose fate was unknown, and that took the session again, may stand between two of these.
    for (node, taken) in takes {
        assert!(taken.former != Former::Node(node.to_owned()) && taken.former != Former::Anyone, "{taken:?}");
    }
}

async fn one_of_those_who_see_the_same_owner_takes_its_session(a: &dyn Owners, b: &dyn Owners) {
    let (tenant, claimed) = (TenantId::default_tenant(), client("claimed"));
    assert_eq!(a.owner(&tenant, &claimed).await, Ok(None));
    let first = take(a, "claimed").await.epoch;
    let owner = a.owner(&tenant, &claimed).await.expect("known");
    assert_eq!(owner, Some(Owner { node: "a".to_owned(), epoch: first }));
    let second = b.take_if(&tenant, &claimed, owner.clone()).await.expect("asked").expect("taken");
    assert!(second > first);
    assert_eq!(a.take_if(&tenant, &claimed, owner).await, Ok(None), "it was faster");
    let owner = Some(Owner { node: "b".to_owned(), epoch: second });
    for (owners, epoch) in [(b, second), (a, first)] {
        owners.renew(&tenant, &claimed, epoch).await.expect("asked");
        assert_eq!(a.owner(&tenant, &claimed).await, Ok(owner.clone()), "who has lost it changes nothing");
    }
}

#[cfg(test)]
mod tests {
    use drover_types::{Clock, FixedClock};

    use super::*;
    use crate::adapters::owners::{Clocks, Embedded};

    struct Alone;

    #[async_trait]
    impl Factory for Alone {
        async fn open(&self, _: &str, boot: u32) -> Arc<dyn Owners> {
            Arc::new(Embedded::new(boot))
        }
    }

    /// With a clock that has moved on by a second at each start.
    struct Timed(Arc<FixedClock>);

    #[async_trait]
    impl Factory for Timed {
        async fn open(&self, _: &str, boot: u32) -> Arc<dyn Owners> {
            self.0.advance(1_000);
            let clock: Arc<dyn Clock> = self.0.clone();
            Arc::new(Clocks::new(clock, boot))
        }
    }

    #[tokio::test]
    async fn a_node_alone_gives_epochs_that_grow() {
        alone(&Alone).await;
    }

    #[tokio::test]
    async fn clocks_that_agree_give_epochs_that_grow() {
        alone(&Timed(Arc::new(FixedClock::at(1_795_000_000_000)))).await;
    }
}
