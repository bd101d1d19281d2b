"""Clients that number what they send, reconnect and redeliver while the server is killed under them.

Arguments: host, port, clients, messages per client. Prints one JSON object at the end:
{"acknowledged": {"dev-0": [0, 1, ...], ...}, "unfinished": {...}}.
"""
import json
import sys
import threading
import time

import paho.mqtt.client as mqtt

host, port, clients, messages = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
PATIENCE_S = 240
WINDOW = 20


def new_client(name):
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id=name, clean_session=False)
    return mqtt.Client(client_id=name, clean_session=False)


class Device:
    def __init__(self, number):
        self.name = f"dev-{number}"
        self.acknowledged = []
        self.numbers = {}
        self.early = set()
        self.lock = threading.Lock()
        self.room = threading.Semaphore(WINDOW)
        self.client = new_client(self.name)
        self.client.max_inflight_messages_set(WINDOW)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_publish = self.on_publish

    def on_publish(self, client, userdata, mid, *rest):
        with self.lock:
            self.settle(mid) if mid in self.numbers else self.early.add(mid)

    def settle(self, mid):
        self.acknowledged.append(self.numbers[mid])
        self.room.release()

    def publish(self, number):
        # Without the lock: paho calls on_publish with a lock of its own that publish takes as well.
        sent = self.client.publish("fleet/" + self.name, json.dumps({"device": self.name, "n": number}), qos=1)
        with self.lock:
            self.numbers[sent.mid] = number
            if sent.mid in self.early:
                self.early.remove(sent.mid)
                self.settle(sent.mid)

    def run(self):
        while True:
            try:
                self.client.connect(host, port, 10)
                break
            except OSError:
                time.sleep(0.2)
        self.client.loop_start()
        for number in range(messages):
            self.room.acquire()
            self.publish(number)
            time.sleep(0.005)
        deadline = time.time() + PATIENCE_S
        while len(self.acknowledged) < messages and time.time() < deadline:
            time.sleep(0.05)
        self.client.disconnect()
        self.client.loop_stop()


devices = [Device(number) for number in range(clients)]
threads = [threading.Thread(target=device.run, daemon=True) for device in devices]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({
    "acknowledged": {device.name: device.acknowledged for device in devices},
    "unfinished": {d.name: messages - len(d.acknowledged) for d in devices if len(d.acknowledged) < messages},
}))
