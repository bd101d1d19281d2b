//! `drover init`: makes what separate processes share, once, before any of them starts.
//!
//! The same files in the same places as `drover up` makes for itself; what is there stays.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use drover_host::{SystemClock, SystemRandom};
use drover_registry::{master_keys, pki};

use crate::data;

/// `drover init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Directory of the certificates and the administrator's token; made if missing.
    #[arg(long, value_name = "DIR", default_value = "./drover-data")]
    data: PathBuf,
    /// A name or address by which machines of the platform are called, for their certificates; may be given several
    /// times.
    #[arg(long, value_name = "NAME")]
    hostname: Vec<String>,
}

impl InitArgs {
    /// Makes what is missing and says where everything is.
    pub fn run(self) -> anyhow::Result<()> {
        data::create(&self.data)?;
        let pki = data::pki_path(&self.data);
        let devices = pki::ensure(&pki, &self.hostname, &SystemClock).context("certificates")?;
        let network = pki::ensure_network(&data::network_pki_path(&pki), &self.hostname, &SystemClock);
        let network = network.context("certificates of the network")?;
        let keys = data::master_keys_path(&self.data);
        master_keys::ensure(&keys, &SystemRandom).context("master key of the registry")?;
        data::made_admin_token(&self.data)?;
        println!("admin token            {}", data::token_path(&self.data).display());
        println!("platform CA            {} (its key stays with the registry)", devices.ca.display());
        println!("master key             {} (for the registry alone)", keys.join(master_keys::CURRENT).display());
        println!("device listeners       {}", devices.server_cert.display());
        println!("network CA             {}", network.ca.display());
        println!("network certificate    {}", network.server_cert.display());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use drover_host::{
        Calling, ListenSpec, Network, NetworkParts, NetworkTls, NetworkTlsConfig, Shutdown, Sockets, Transport,
        dependency, grpc,
    };

    use super::*;

    fn tls(certificate: &Path, key: &Path, ca: &Path) -> NetworkTls {
        let config = NetworkTlsConfig { certificate: certificate.into(), key: key.into(), ca: ca.into() };
        NetworkTls::read(&config).expect("the files are there")
    }

    /// A network that knows one service at `uri`.
    fn network(data: &Path, tls: Option<NetworkTls>, uri: &str) -> Network {
        let services = HashMap::from([("registry".to_owned(), vec![uri.parse().expect("a URI")])]);
        let admin_token = Some(data::made_admin_token(data).expect("there"));
        let calling = Calling { deadline: std::time::Duration::from_secs(5), ..Calling::default() };
        Network::new(NetworkParts { services, admin_token, tls, calling }).expect("certificates can be used")
    }

    #[tokio::test]
    async fn processes_know_each_other_by_its_certificates_and_a_device_is_kept_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path();
        InitArgs { data: data.to_owned(), hostname: vec![] }.run().expect("made");
        let token = std::fs::read(data::token_path(data)).expect("there");
        InitArgs { data: data.to_owned(), hostname: vec![] }.run().expect("once more");
        assert_eq!(std::fs::read(data::token_path(data)).expect("there"), token, "what is there stays");

        let (pki, own) = (data::pki_path(data), data::network_pki_path(&data::pki_path(data)));
        let ours = || tls(&own.join("service.pem"), &own.join("service.key"), &own.join("ca.pem"));
        // Of the platform's own authority, as the certificates of devices are.
        let stranger = tls(&pki.join("server.pem"), &pki.join("server.key"), &own.join("ca.pem"));
        let any = vec!["127.0.0.1:0".parse().expect("an address")];
        let spec = ListenSpec { name: grpc::SOCKET, key: "listen", transport: Transport::Tcp, addresses: any };
        let sockets = Sockets::bind(&[spec]).expect("port 0 is free");
        let address = sockets.addresses(grpc::SOCKET)[0];
        let (shutdown, server) = (Shutdown::new(), network(data, Some(ours()), "https://127.0.0.1:1"));
        let stop = shutdown.clone();
        let served = tokio::spawn(async move {
            grpc::serve(grpc::Routes::default(), "registry", &sockets, &server, stop).await.expect("serves");
        });

        let asks = async |tls, scheme: &str| {
            let network = network(data, tls, &format!("{scheme}://{address}"));
            dependency::service("registry", network.client("registry"))().await
        };
        asks(Some(ours()), "https").await.expect("both are of the platform");
        for (refused, scheme) in [(Some(stranger), "https"), (None, "http")] {
            asks(refused, scheme).await.expect_err("not of the network");
        }
        shutdown.cancel();
        served.await.expect("ends");
    }
}
