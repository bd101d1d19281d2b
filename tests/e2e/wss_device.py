"""A device over MQTT over WebSocket over TLS: subscribed to what it publishes, it prints what comes.

Arguments: host, port, CA file, name. Its token is in DROVER_TOKEN_DEVICE.
"""
import os
import sys

import paho.mqtt.client as mqtt

host, port, ca, name = sys.argv[1:5]
TOPIC = f"sensors/{name}/climate"


def on_connect(client, userdata, flags, rc, *rest):
    client.subscribe(TOPIC, qos=1)


def on_subscribe(client, userdata, *rest):
    client.publish(TOPIC, "22.5", qos=1)


def on_message(client, userdata, message):
    print("received", message.topic, message.payload.decode(), flush=True)
    client.disconnect()


def new_client():
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id=name, transport="websockets")
    return mqtt.Client(client_id=name, transport="websockets")


client = new_client()
client.ws_set_options(path="/mqtt")
client.tls_set(ca)
client.username_pw_set(name, os.environ["DROVER_TOKEN_DEVICE"])
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect(host, int(port), 60)
client.loop_forever()
