// Reads what a rule writes to a Kafka topic, committed rows only: node application.js TOPIC
const { Kafka, logLevel } = require("kafkajs");

const topic = process.argv[2];
const count = Number(process.env.COUNT ?? 0);
const kafka = new Kafka({ brokers: [process.env.KAFKA ?? "127.0.0.1:9092"], logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: `example-${process.pid}`, readUncommitted: false });
let seen = 0;

async function run() {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const row = JSON.parse(message.value);
      console.log(`${message.key}: ${row.temperature} °C`);
      seen += 1;
      if (seen === count) setImmediate(() => consumer.disconnect().then(() => process.exit(0)));
    },
  });
}

run().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
