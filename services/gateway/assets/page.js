// Every page: times as people say them.
import { tellTimes } from "./drover.js";

const TELL_MS = 5000;
tellTimes();
setInterval(tellTimes, TELL_MS);
