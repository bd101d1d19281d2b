# Publishes ten readings of @device@. Needs: pip install paho-mqtt
import json
import time

import paho.mqtt.client as mqtt

HOST, PORT = @host_quoted@, @port@
DEVICE, USER, TOKEN = @device_quoted@, @user_quoted@, @token_quoted@

try:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=DEVICE)
except AttributeError:  # paho-mqtt 1
    client = mqtt.Client(client_id=DEVICE)
client.username_pw_set(USER, TOKEN)
client.connect(HOST, PORT)
client.loop_start()
for n in range(10):
    reading = json.dumps({"temperature": 20 + n, "at": round(time.time() * 1000)})
    message = client.publish(f"sensors/{DEVICE}/climate", reading, qos=1)
    message.wait_for_publish(10)
    if not message.is_published():
        raise SystemExit("not acknowledged within 10 seconds: is the token still valid?")
    print("published", reading)
    time.sleep(1)
client.disconnect()
