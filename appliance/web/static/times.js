// Times as the screens write them.
const two = (n) => String(n).padStart(2, "0");

// The wall clock of a server: its milliseconds, and the minutes of its zone.
export function wall(ms, offset) {
  const at = new Date(ms + offset * 60000);
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}:${two(at.getUTCSeconds())}`;
}

export function elapsed(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  const hours = Math.floor(s / 3600);
  const minutes = Math.floor(s / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}
