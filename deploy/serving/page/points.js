// The points of a map, as the server sends them: a header in JSON, then columns of numbers.

const MAGIC = "GSMAP001";
const TYPES = { f4: Float32Array, i4: Int32Array, u4: Uint32Array, u1: Uint8Array, i8: BigInt64Array };

export class Points {
  constructor(buffer) {
    const text = new TextDecoder();
    if (buffer.byteLength < 16 || text.decode(new Uint8Array(buffer, 0, 8)) !== MAGIC) {
      throw new Error("The map has a form that this page does not know. Reload the page.");
    }
    const length = new DataView(buffer).getUint32(8, true);
    this.header = JSON.parse(text.decode(new Uint8Array(buffer, 16, length)));
    const start = 16 + length;
    this.columns = {};
    for (const { name, type, offset, length: size } of this.header.columns) {
      this.columns[name] = new TYPES[type](buffer, start + offset, size);
    }
    this.size = this.header.num_points;
    this.text = text;
  }

  /** The id of a point, as text. */
  id(point) {
    const { id, id_offsets: offsets, id_bytes: bytes } = this.columns;
    return id ? id[point].toString() : this.text.decode(bytes.subarray(offsets[point], offsets[point + 1]));
  }

  /** The class of a point, -1 for none. */
  label(point) {
    return this.columns.label ? this.columns.label[point] : -1;
  }

  /** The points of every class: [{label, points}]; those without one come first, to be drawn below the others. */
  groups() {
    if (!this.columns.label) return [{ label: -1, points: Uint32Array.from({ length: this.size }, (_, index) => index) }];
    const labels = this.columns.label, sizes = new Map();
    for (const label of labels) sizes.set(label, (sizes.get(label) ?? 0) + 1);
    const groups = new Map([...sizes].map(([label, size]) => [label, { label, points: new Uint32Array(size), filled: 0 }]));
    labels.forEach((label, point) => { const group = groups.get(label); group.points[group.filled++] = point; });
    return [...groups.values()].sort((a, b) => a.label - b.label);
  }

  /** [left, right, bottom, top] of all points. */
  bounds() {
    const { x, y } = this.columns;
    let [left, right, bottom, top] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let point = 0; point < this.size; point++) {
      left = Math.min(left, x[point]); right = Math.max(right, x[point]);
      bottom = Math.min(bottom, y[point]); top = Math.max(top, y[point]);
    }
    return this.size ? [left, right, bottom, top] : [-1, 1, -1, 1];
  }
}
