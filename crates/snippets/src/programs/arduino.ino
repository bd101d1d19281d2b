// Publishes a reading of @device@ every five seconds (ESP32; library: PubSubClient).
// Set your Wi-Fi here, and HOST to an address of the platform that the board can reach.
#include <PubSubClient.h>
#include <WiFi.h>

const char* WIFI_NAME = "your-wifi";
const char* WIFI_PASSWORD = "your-password";
const char* HOST = @host_quoted@;
const uint16_t PORT = @port@;
const char* DEVICE = @device_quoted@;
const char* USER = @user_quoted@;
const char* TOKEN = @token_quoted@;
const char* TOPIC = @topic_quoted@;

WiFiClient network;
PubSubClient mqtt(network);

void setup() {
  Serial.begin(115200);
  WiFi.begin(WIFI_NAME, WIFI_PASSWORD);
  while (WiFi.status() != WL_CONNECTED) {
    delay(500);
  }
  mqtt.setServer(HOST, PORT);
}

void loop() {
  if (!mqtt.connected() && !mqtt.connect(DEVICE, USER, TOKEN)) {
    Serial.println("no connection yet");
    delay(5000);
    return;
  }
  mqtt.loop();
  char reading[48];
  snprintf(reading, sizeof reading, "{\"temperature\": %.1f}", temperatureRead());
  mqtt.publish(TOPIC, reading);
  delay(5000);
}
