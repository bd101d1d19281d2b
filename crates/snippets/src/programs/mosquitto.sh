#!/bin/sh
# Publishes one reading of @device@. Needs: mosquitto-clients
mosquitto_pub -h '@host@' -p @port@ -i '@device@' -u '@user@' -P '@token@' \
  -q 1 -t 'sensors/@device@/climate' -m "{\"temperature\": 21.5, \"at\": $(date +%s)}"
