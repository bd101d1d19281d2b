// Publishes ten readings over MQTT, each acknowledged before the next: node device.js NAME
const mqtt = require("mqtt");

const name = process.argv[2];
const client = mqtt.connect(`mqtt://${process.env.MQTT ?? "127.0.0.1:1883"}`, {
  clientId: name,
  username: name,
  password: process.env.DROVER_TOKEN_DEVICE,
  reconnectPeriod: 0,
});

client.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});

client.on("connect", async () => {
  for (let n = 0; n < 10; n += 1) {
    await client.publishAsync(`sensors/${name}/climate`, JSON.stringify({ temperature: 25.5 + n, n }), { qos: 1 });
  }
  await client.endAsync();
  console.log("10 readings are kept");
});
