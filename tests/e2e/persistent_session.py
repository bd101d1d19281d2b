"""A device whose session outlives its connections, and whoever sends to it.

Arguments: host, port, then one of
  subscribe               subscribes to inbox/# at QoS 1 and goes
  publish FIRST END       publishes FIRST to END - 1 to inbox/n at QoS 1; returns when all are acknowledged
  receive FIRST END       comes back; prints {"present": bool, "numbers": [...]} when it has FIRST to END - 1, each as it
                          came first; what came before and comes again is left out
"""
import json
import sys
import threading

import paho.mqtt.client as mqtt

PATIENCE_S = 60
host, port, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]
done = threading.Event()


def new_client(name, clean):
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id=name, clean_session=clean)
    return mqtt.Client(client_id=name, clean_session=clean)


def run(client):
    client.connect(host, port, 60)
    client.loop_start()
    if not done.wait(PATIENCE_S):
        sys.exit(f"{action} is not done after {PATIENCE_S} s")
    client.disconnect()
    client.loop_stop()


def subscribe():
    client = new_client("keeper", clean=False)
    client.on_connect = lambda client, *rest: client.subscribe("inbox/#", qos=1)
    client.on_subscribe = lambda *rest: done.set()
    run(client)


def publish(first, end):
    client = new_client("sender", clean=True)
    left = set(range(first, end))
    client.on_publish = lambda *rest: (left.pop(), left or done.set())
    client.on_connect = lambda client, *rest: [client.publish("inbox/n", str(n), qos=1) for n in range(first, end)]
    run(client)


def receive(first, end):
    client = new_client("keeper", clean=False)
    seen = {"present": None, "numbers": []}

    def on_connect(client, userdata, flags, *rest):
        seen["present"] = bool(flags["session present"])

    def on_message(client, userdata, message):
        number = int(message.payload)
        if number >= first and number not in seen["numbers"]:
            seen["numbers"].append(number)
        if len(seen["numbers"]) == end - first:
            done.set()

    client.on_connect, client.on_message = on_connect, on_message
    run(client)
    print(json.dumps(seen))


{"subscribe": subscribe, "publish": publish, "receive": receive}[action](*map(int, sys.argv[4:]))
