"use strict";

// "Play both": plays two clips in step, in a loop, with the sound of one of them, which the listener can switch.

const playback = { card: null };

/** Returns the two videos of a card. Their data-name is the name that the page shows. */
function playersOf(card) {
  return [...card.querySelectorAll("video")];
}

function playControls() {
  return element(
    "div",
    { class: "play-controls" },
    element("button", { type: "button", class: "play-both", "aria-pressed": "false" }, "Play both"),
    element("button", { type: "button", class: "sound quiet" }),
  );
}

function connectPlayers(card) {
  card.dataset.sound = 0;
  card.querySelector(".play-both").addEventListener("click", () => togglePlay(card));
  card.querySelector(".sound").addEventListener("click", () => toggleSound(card));
  showSound(card);
}

function whenPlayable(video) {
  if (video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA) return Promise.resolve();
  return new Promise((resolve, reject) => {
    video.addEventListener("canplay", resolve, { once: true });
    video.addEventListener("error", reject, { once: true });
    video.preload = "auto";
    video.load();
  });
}

function applySound(card) {
  playersOf(card).forEach((video, index) => (video.muted = index !== Number(card.dataset.sound)));
}

function showSound(card) {
  card.querySelector(".sound").textContent = "Sound: " + playersOf(card)[card.dataset.sound].dataset.name;
}

function showPlaying(card, playing) {
  const button = card.querySelector(".play-both");
  button.textContent = playing ? "Stop" : "Play both";
  button.setAttribute("aria-pressed", String(playing));
}

function restart(videos) {
  for (const video of videos) {
    video.currentTime = 0;
    video.play();
  }
}

function stopBoth() {
  const card = playback.card;
  if (card === null) return;
  playback.card = null;
  for (const video of playersOf(card)) {
    video.onended = null;
    video.pause();
    video.muted = false;
  }
  showPlaying(card, false);
}

async function playBoth(card) {
  stopBoth();
  playback.card = card;
  showPlaying(card, true);
  const videos = playersOf(card);
  videos.forEach((video) => fetchClip(video, "auto"));
  try {
    await Promise.all(videos.map(whenPlayable));
  } catch {
    if (playback.card === card) stopBoth(); // the player that failed shows its own message
    return;
  }
  if (playback.card !== card) return;
  applySound(card);
  for (const video of videos) {
    video.onended = () => videos.every((other) => other.ended) && restart(videos);
  }
  restart(videos);
}

function togglePlay(card) {
  if (playback.card === card) stopBoth();
  else playBoth(card);
}

function toggleSound(card) {
  card.dataset.sound = 1 - card.dataset.sound;
  showSound(card);
  if (playback.card === card) applySound(card);
}

/** Stops the sound of all other pairs, also when a player is started by its own control. */
function silenceOtherCards(card) {
  if (playback.card !== card) stopBoth();
  for (const video of document.querySelectorAll("video")) {
    if (!card.contains(video)) video.pause();
  }
}
