//! Publishes ten readings over MQTT: `cargo run -p drover-examples --bin device NAME`.

use std::env;

use anyhow::{Context, bail};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};

const READINGS: usize = 10;

fn main() -> anyhow::Result<()> {
    let name = env::args().nth(1).context("usage: device NAME")?;
    let token = env::var("DROVER_TOKEN_DEVICE").context("DROVER_TOKEN_DEVICE is the token of the device")?;
    let address = env::var("MQTT").unwrap_or_else(|_| "127.0.0.1:1883".to_owned());
    let (host, port) = address.rsplit_once(':').context("MQTT is HOST:PORT")?;

    let mut options = MqttOptions::new(&name, host, port.parse()?);
    options.set_credentials(&name, token);
    let (client, mut connection) = Client::new(options, READINGS);
    for n in 0..READINGS {
        let reading = format!(r#"{{"temperature": {}.5, "n": {n}}}"#, 25 + n);
        client.publish(format!("sensors/{name}/climate"), QoS::AtLeastOnce, false, reading)?;
    }
    let mut acknowledged = 0;
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event? {
            acknowledged += 1;
        }
        if acknowledged == READINGS {
            client.disconnect()?;
            println!("{READINGS} readings are kept");
            return Ok(());
        }
    }
    bail!("the connection ended after {acknowledged} of {READINGS} acknowledgements")
}
