// Publishes over WebSocket what it has subscribed to, and prints what comes: node websocket.cjs URL NAME
const mqtt = require("mqtt");

const [url, name] = process.argv.slice(2);

/** One client of this protocol version, from connect to end. */
async function once(protocolVersion) {
  const client = mqtt.connect(url, {
    clientId: name,
    username: name,
    password: process.env.DROVER_TOKEN_DEVICE,
    protocolVersion,
    reconnectPeriod: 0,
  });
  await new Promise((resolve, reject) => {
    client.on("connect", resolve);
    client.on("error", reject);
    client.on("close", () => reject(new Error("closed")));
  });
  const sent = ["22.5", "x".repeat(200 * 1024)];
  const received = [];
  const all = new Promise((resolve) => {
    client.on("message", (_topic, payload) => {
      received.push(payload.toString());
      if (received.length === sent.length) resolve();
    });
  });
  await client.subscribeAsync(`sensors/${name}/#`, { qos: 1 });
  await Promise.all(sent.map((payload) => client.publishAsync(`sensors/${name}/climate`, payload, { qos: 1 })));
  await all;
  await client.endAsync();
  const same = received.every((payload, n) => payload === sent[n]);
  console.log(`${protocolVersion}: ${received.length} messages, ${same ? "as sent" : "altered"}`);
}

once(4)
  .then(() => once(5))
  .catch((error) => {
    console.error(error.message);
    process.exit(1);
  });
