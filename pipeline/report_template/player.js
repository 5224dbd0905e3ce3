"use strict";

// "Play both": winner and loser in step, looped, with the sound of one of them, so that an ear can switch between the two.

const playback = { card: null };

function playersOf(card) {
  return SIDES.map((side) => card.querySelector(`video[data-side="${side}"]`));
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
  for (const video of playersOf(card)) video.muted = video.dataset.side !== card.dataset.sound;
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
  try {
    await Promise.all(videos.map(whenPlayable));
  } catch {
    stopBoth(); // the player that failed shows its own message
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
  const side = card.dataset.sound === "chosen" ? "rejected" : "chosen";
  card.dataset.sound = side;
  card.querySelector(".sound").textContent = side === "chosen" ? "Sound: winner" : "Sound: loser";
  if (playback.card === card) applySound(card);
}

/** One pair is heard at a time, also when a player's own control starts it. */
function silenceOtherCards(card) {
  if (playback.card !== card) stopBoth();
  for (const video of document.querySelectorAll("video")) {
    if (!card.contains(video)) video.pause();
  }
}
