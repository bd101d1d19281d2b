"""A device as its maker wrote it: mutual TLS, CONNECT and PUBLISH in one write, subscribed to its own topic.

Arguments: host, port, CA file, certificate file, key file.
"""
import json
import ssl
import sys

import paho.mqtt.client as mqtt

host, port, ca, cert, key = sys.argv[1:6]
TOPIC = "sensors/temperature"


def on_connect(client, userdata, flags, rc, *rest):
    client.subscribe(TOPIC, qos=0)


def on_subscribe(client, userdata, *rest):
    client.publish(TOPIC, json.dumps({"temperature": 22.5, "humidity": 60}), qos=0)


def on_message(client, userdata, message):
    print("received", message.topic, message.payload.decode(), flush=True)
    client.disconnect()


def new_client(name):
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id=name)
    return mqtt.Client(client_id=name)


client = new_client("thermo-1")
client.tls_set(ca, cert, key, ssl.CERT_REQUIRED, ssl.PROTOCOL_TLSv1_2)
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port), 60)
# Before the CONNACK: both packets reach the server in one read.
client.publish(TOPIC, json.dumps({"temperature": 22.5, "humidity": 60}), qos=0)
client.loop_forever()
