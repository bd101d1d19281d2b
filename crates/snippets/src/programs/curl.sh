#!/bin/sh
# Posts one reading of @device@. Needs: curl
curl -X POST "http://@http@/update?api_key=@token@" -d "field1=21.5"
# Or a message of any shape to any topic:
#   curl -H 'Authorization: Bearer @token@' -d '{"temperature": 21.5}' "http://@http@/v1/topics/@topic@"
