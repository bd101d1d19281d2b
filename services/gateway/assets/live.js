// Live messages of the whole tenant.
import { follow, messageList, streamState } from "./drover.js";

const list = document.getElementById("messages");
const shown = messageList(list, document.getElementById("no-messages"), 200);
follow({ filter: list.dataset.filter }, {
  message: (message) => shown.message(message, true),
  dropped: shown.dropped,
  state: streamState(document.getElementById("stream-state")),
});
