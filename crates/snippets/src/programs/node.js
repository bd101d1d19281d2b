// Publishes ten readings of @device@. Needs: npm install mqtt
const mqtt = require("mqtt");

const device = @device_quoted@;
const client = mqtt.connect(@url_quoted@, {
  clientId: device,
  username: @user_quoted@,
  password: @token_quoted@,
});

client.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});

let sent = 0;
client.once("connect", () => {
  const timer = setInterval(() => {
    const reading = JSON.stringify({ temperature: 20 + sent, at: Date.now() });
    client.publish(`sensors/${device}/climate`, reading, { qos: 1 }, () => {
      console.log("published", reading);
      sent += 1;
      if (sent === 10) {
        clearInterval(timer);
        client.end();
      }
    });
  }, 1000);
});
