//! Commands: through the outbox to the shadow service, under the id of the output.

use std::sync::{Arc, Mutex};

use drover_host::{Shutdown, Sockets, grpc};
use drover_proto::shadow::v1::commands_server::{Commands, CommandsServer};
use drover_proto::shadow::v1::{
    GetCommandRequest, GetCommandResponse, ListCommandsRequest, ListCommandsResponse, SendCommandRequest,
    SendCommandResponse,
};
use drover_rules::ERRORS_TOPIC;
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::world::{World, header, message, until};

/// Remembers what was sent; refuses what is for the device `nobody`.
#[derive(Clone, Default)]
struct FakeCommands(Arc<Mutex<Vec<SendCommandRequest>>>);

#[tonic::async_trait]
impl Commands for FakeCommands {
    async fn send_command(
        &self,
        request: Request<SendCommandRequest>,
    ) -> Result<Response<SendCommandResponse>, Status> {
        let request = request.into_inner();
        if request.device == "nobody" {
            return Err(Status::invalid_argument("no such device"));
        }
        self.0.lock().expect("not poisoned").push(request);
        Ok(Response::new(SendCommandResponse::default()))
    }

    async fn get_command(&self, _: Request<GetCommandRequest>) -> Result<Response<GetCommandResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn list_commands(&self, _: Request<ListCommandsRequest>) -> Result<Response<ListCommandsResponse>, Status> {
        Err(Status::unimplemented("not asked here"))
    }
}

#[tokio::test]
async fn a_command_is_sent_with_values_of_their_own_type_under_the_id_of_its_output() {
    let (world, _dir) = World::embedded().await;
    let payload = json!({"n": "${n}", "text": "${n} °C", "list": ["${topic(2)}", true]});
    let command = json!({"device": "${target}", "name": "fan", "payload": payload, "timeout": "10m"});
    let plain = json!({"device": "lamp", "name": "reboot"});
    let actions = json!([{"command": command}, {"command": plain}]);
    world.rule("cool", 1, Some(json!({"sql": "SELECT n FROM 'sensors/+'", "actions": actions}))).await;
    let running = world.start("a");
    let sources = [("fan", 1), ("nobody", 2)];
    world.publish(sources.map(|(to, n)| message("d", n, &format!("{{\"n\":{n},\"target\":\"{to}\"}}")))).await;
    world.drained().await;
    // All wait until the shadow service is there.
    let fake = FakeCommands::default();
    let (routes, network) = (grpc::Routes::new(CommandsServer::new(fake.clone())), world.network.clone());
    tokio::spawn(async move {
        grpc::serve(routes, "shadow", &Sockets::default(), &network, Shutdown::new()).await.expect("served");
    });
    until("refused", async || world.read(ERRORS_TOPIC).await.len() == 1).await;
    assert_eq!(header(&world.read(ERRORS_TOPIC).await[0], "error"), "action 0: no such device");
    let of = |n: u16, action: u32| message("d", n, "").id.derived("cool", action).0.to_vec();
    let sent = async || fake.0.lock().expect("not poisoned").clone();
    let has = async |id: Vec<u8>| sent().await.iter().any(|request| request.id == id);
    until("the others are sent", async || has(of(1, 0)).await && has(of(1, 1)).await && has(of(2, 1)).await).await;
    let expected = SendCommandRequest {
        tenant: "home".into(),
        device: "fan".into(),
        name: "fan".into(),
        payload: r#"{"n":1,"text":"1 °C","list":["d",true]}"#.as_bytes().to_vec(),
        timeout_ms: 600_000,
        id: of(1, 0),
        hops: 1,
        idempotency_key: String::new(),
    };
    let sent = sent().await;
    let of_first: Vec<_> = sent.iter().filter(|request| request.id == expected.id).collect();
    assert!(of_first.iter().all(|request| **request == expected), "{of_first:?}");
    let plain = sent.iter().find(|request| request.id == of(2, 1)).expect("sent");
    assert_eq!((plain.device.as_str(), plain.name.as_str()), ("lamp", "reboot"));
    assert_eq!((plain.payload.as_slice(), plain.timeout_ms), (b"null".as_slice(), 60_000));
    running.stop().await;
}
