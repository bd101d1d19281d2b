// Exchanges the code in the link's fragment, which no server log sees, for a session.
const state = document.getElementById("state");
const code = location.hash.slice(1);
history.replaceState(null, "", location.pathname);

const answer = code && (await fetch("/open", { method: "POST", body: code }));
if (answer?.ok) {
  location.replace("/");
} else {
  state.textContent = "This link was used already, or is older than two minutes. Type `drover open` for another.";
}
