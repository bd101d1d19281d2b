"""Publishes ten readings over MQTT, each acknowledged before the next: python device.py NAME"""
import json
import os
import sys

import paho.mqtt.client as mqtt

name = sys.argv[1]
host, port = os.environ.get("MQTT", "127.0.0.1:1883").rsplit(":", 1)

try:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
except AttributeError:  # paho-mqtt 1
    client = mqtt.Client(client_id=name)
client.username_pw_set(name, os.environ["DROVER_TOKEN_DEVICE"])
client.connect(host, int(port))
client.loop_start()
for n in range(10):
    message = client.publish(f"sensors/{name}/climate", json.dumps({"temperature": 25.5 + n, "n": n}), qos=1)
    message.wait_for_publish(10)
    if not message.is_published():
        sys.exit("not acknowledged within 10 seconds: is the token right?")
client.disconnect()
client.loop_stop()
print("10 readings are kept")
