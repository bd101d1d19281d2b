//! Services as entries of a list, so that one process can run any of them without knowing what they are.

use std::future::Future;
use std::pin::Pin;

use serde_json::Value;

use crate::config::{ConfigError, Layers, UnknownKeys};
use crate::{ListenSpec, Ports, Retained, Service, ServiceConfig, Shutdown};

/// One service of the list.
#[derive(Clone, Copy)]
pub struct Entry {
    /// [`Service::NAME`].
    pub name: &'static str,
    /// [`Service::NEEDS`].
    pub needs: &'static [&'static str],
    prepare: fn(&Layers) -> Result<Prepared, ConfigError>,
    unknown_keys: fn(&Layers) -> UnknownKeys,
}

/// The body of a service that has its configuration.
type Body = Box<dyn FnOnce(Ports, Shutdown) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>> + Send>;

/// A service whose configuration is valid, before its sockets are bound.
pub struct Prepared {
    pub name: &'static str,
    /// [`Service::NEEDS`].
    pub needs: &'static [&'static str],
    /// [`Service::RETAINS`].
    pub retains: &'static [Retained],
    /// Sockets it wants.
    pub listeners: Vec<ListenSpec>,
    /// Its whole section, as `--print-config` shows it.
    pub section: Value,
    /// Starts it.
    pub body: Body,
}

impl Entry {
    /// The entry of `S`.
    pub const fn of<S: Service>() -> Self {
        Self { name: S::NAME, needs: S::NEEDS, prepare: prepare::<S>, unknown_keys: unknown_keys::<S> }
    }

    /// Keys of the service's section that it does not know.
    pub fn unknown_keys(&self, layers: &Layers) -> UnknownKeys {
        (self.unknown_keys)(layers)
    }

    /// Reads and checks the service's section.
    pub fn prepare(&self, layers: &Layers) -> Result<Prepared, ConfigError> {
        (self.prepare)(layers)
    }
}

fn unknown_keys<S: Service>(layers: &Layers) -> UnknownKeys {
    layers.unknown_keys::<S::Config>(S::NAME)
}

fn prepare<S: Service>(layers: &Layers) -> Result<Prepared, ConfigError> {
    let config: S::Config = layers.service(S::NAME)?;
    Ok(Prepared {
        name: S::NAME,
        needs: S::NEEDS,
        retains: S::RETAINS,
        listeners: config.listeners(),
        section: serde_json::to_value(&config).expect("a configuration is plain data"),
        body: Box::new(move |ports, shutdown| Box::pin(S::run(config, ports, shutdown))),
    })
}
