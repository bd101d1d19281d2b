//! What the kinds of objects have to say for themselves.

use std::fmt::Debug;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Namespaced;
use super::context::Context;
use super::failure::Failure;
use crate::crd::Condition;

/// A kind of objects that the operator takes care of.
#[async_trait]
pub trait Kind: Namespaced + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + Unpin + 'static {
    /// `Device` for example.
    const NAME: &'static str;

    /// The conditions of its status.
    fn conditions(&self) -> &[Condition];

    /// Objects of the namespace, or of all, that have to be looked at because something else has changed which they name.
    /// `known`: those that there are. By default none.
    fn triggers(
        _context: &Context,
        _namespace: Option<&str>,
        _known: Store<DeserializeGuard<Self>>,
    ) -> BoxStream<'static, ObjectRef<DeserializeGuard<Self>>> {
        stream::empty().boxed()
    }

    /// Brings everything to what the object declares, and its status to what is so; answers when to look again. A refusal
    /// is told in the status and is no failure.
    async fn apply(&self, context: &Context) -> Result<Action, Failure>;

    /// Takes away what the object stood for; again, if it is gone already.
    async fn cleanup(&self, context: &Context) -> Result<(), Failure>;
}
