//! Extended authentication (MQTT 5 section 4.12): the exchange between CONNECT and CONNACK.
//!
//! A method turns what the client says into a proof, step by step; who the proof belongs to is asked as for any other.
//! Of the methods none is built in: a client that names one which the node does not have is refused with 0x8C.

use drover_mqtt::{Auth, Connect, Packet, Property, PropertyList, ReasonCode};

use super::connect::Connecting;
use super::{Connection, Effect, Fault, Phase};
use crate::domain::identity::Proof;
use crate::ports::{AuthExchange, AuthStep};

/// Challenges of one exchange; nobody is known before its end.
const CHALLENGES_MAX: usize = 8;

/// A CONNECT whose client is to answer a challenge.
pub(super) struct Challenged {
    pub(super) connecting: Box<Connecting>,
    exchange: Box<dyn AuthExchange>,
    method: Box<str>,
    challenges: usize,
}

/// What the CONNACK repeats of an exchange [MQTT-4.12.0-5].
pub(super) struct Authenticated {
    pub(super) method: Box<str>,
    pub(super) data: Vec<u8>,
}

impl Connection {
    /// The exchange that a CONNECT asks for; `None`: it asks for none.
    pub(super) fn exchange(&self, connect: &Connect<'_>) -> Result<Option<Box<dyn AuthExchange>>, Fault> {
        let Some(name) = connect.properties.authentication_method() else { return Ok(None) };
        let method = self.environment.methods.iter().find(|method| method.name() == name);
        method.map(|method| Some(method.begin())).ok_or(Fault::AuthenticationMethod) // [MQTT-4.12.0-1]
    }

    /// Begins the exchange with what the CONNECT has said.
    pub(super) fn challenge(
        &mut self,
        connecting: Box<Connecting>,
        exchange: Box<dyn AuthExchange>,
        connect: &Connect<'_>,
    ) -> Result<(), Fault> {
        let method = connect.properties.authentication_method().unwrap_or_default().into();
        let data = connect.properties.authentication_data().unwrap_or_default();
        self.step(Box::new(Challenged { connecting, exchange, method, challenges: 0 }), data)
    }

    /// The client's answer to a challenge.
    pub(super) fn auth(&mut self, auth: &Auth<'_>) -> Result<(), Fault> {
        match std::mem::replace(&mut self.phase, Phase::Closed(None)) {
            Phase::Challenged(challenged) => {
                let same = auth.properties.authentication_method() == Some(&*challenged.method); // [MQTT-4.12.0-5]
                if auth.reason != ReasonCode::ContinueAuthentication || !same {
                    self.phase = Phase::Challenged(challenged);
                    return Err(Fault::Challenge);
                }
                self.step(challenged, auth.properties.authentication_data().unwrap_or_default())
            }
            other => {
                self.phase = other;
                Err(Fault::Unexpected { packet: drover_mqtt::PacketType::Auth })
            }
        }
    }

    fn step(&mut self, mut challenged: Box<Challenged>, data: &[u8]) -> Result<(), Fault> {
        match challenged.exchange.answer(data) {
            AuthStep::Challenge(data) if challenged.challenges < CHALLENGES_MAX => {
                challenged.challenges += 1;
                let properties = properties(&challenged.method, &data);
                self.phase = Phase::Challenged(challenged);
                let properties = properties.as_properties();
                self.send(&Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties })); // [MQTT-4.12.0-2]
                Ok(())
            }
            AuthStep::Done { proof, data } => {
                let Challenged { mut connecting, method, .. } = *challenged;
                connecting.authenticated = Some(Authenticated { method, data });
                self.ask(connecting, proof);
                Ok(())
            }
            AuthStep::Challenge(_) | AuthStep::Refused => {
                self.phase = Phase::Challenged(challenged);
                Err(Fault::NotAuthenticated)
            }
        }
    }

    /// Asks whose the proof is.
    pub(super) fn ask(&mut self, connecting: Box<Connecting>, proof: Proof) {
        self.phase = Phase::Authenticating(connecting);
        self.want(Effect::Authenticate(proof));
    }
}

fn properties(method: &str, data: &[u8]) -> PropertyList {
    let mut list = PropertyList::default();
    list.push(Property::AuthenticationMethod(method)).expect("it came in such a property");
    // Data that no packet can hold is left out: the client will not know how to go on, which ends the exchange.
    list.push(Property::AuthenticationData(data)).ok();
    list
}
