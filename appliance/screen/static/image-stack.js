// The slices of a study and where the reader is among them: without a page, without a network.
const AROUND = 12;

export class Stack {
  list = null;
  series = null;
  index = 0;

  get picture() {
    return this.series?.pictures[this.index];
  }

  get length() {
    return this.series?.pictures.length ?? 0;
  }

  get isEmpty() {
    return !this.list?.series.some((series) => series.pictures.length);
  }

  // Where a frame of the present series is, below the address of the study: as a screen shows it, or whole.
  key(picture = this.picture, isWhole = false) {
    return `${this.series.id}/${picture?.id}${isWhole ? "?px=0" : "?px=1024"}`;
  }

  // A series as the newest list has it.
  fresh(series) {
    return this.list?.series.find((one) => one.id === series.id) ?? series;
  }

  // {series, index} of a picture; null where the list does not have it.
  find(id) {
    for (const series of this.list?.series ?? []) {
      const index = series.pictures.findIndex((picture) => picture.id === id);
      if (index >= 0) return { series, index };
    }
    return null;
  }

  // Where a reader begins: in the first series with a key slice, else in the first with pictures.
  begin() {
    const { series } = this.list;
    return series.find((one) => one.pictures.some((picture) => picture.key)) ?? series.find((one) => one.pictures.length);
  }

  // Returns whether this is another series.
  go(series, index) {
    const isOther = series.id !== this.series?.id;
    this.series = series;
    this.index = Math.min(Math.max(index, 0), series.pictures.length - 1);
    return isOther;
  }

  // The next key slice; undefined where there is none.
  nextKey() {
    const keys = this.series.pictures.flatMap((picture, n) => (picture.key ? [n] : []));
    return keys.find((n) => n > this.index) ?? keys[0];
  }

  // Keys in the order of need: the present slice, those around it, where the other series begin if they are prepared.
  wanted(isWhole) {
    const { pictures } = this.series;
    const keys = [];
    if (!this.picture.gone) keys.push(this.key());
    if (isWhole) keys.push(this.key(this.picture, true));
    for (let far = 1; far <= AROUND; far += 1) {
      for (const n of [this.index + far, this.index - far]) {
        if (pictures[n] && !pictures[n].gone) keys.push(this.key(pictures[n]));
      }
    }
    for (const series of this.list.series) {
      const first = series.pictures[series.first];
      if (series.id !== this.series.id && first?.ready && !first.gone) keys.push(`${series.id}/${first.id}?px=1024`);
    }
    return keys;
  }
}
