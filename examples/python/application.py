"""Reads what a rule writes to a Kafka topic, committed rows only: python application.py TOPIC"""
import json
import os
import sys

from kafka import KafkaConsumer

count = int(os.environ.get("COUNT", 0))
consumer = KafkaConsumer(
    sys.argv[1],
    bootstrap_servers=os.environ.get("KAFKA", "127.0.0.1:9092"),
    auto_offset_reset="earliest",
    isolation_level="read_committed",
)
for seen, record in enumerate(consumer, 1):
    row = json.loads(record.value)
    print(f"{record.key.decode()}: {row['temperature']} °C", flush=True)
    if seen == count:
        break
