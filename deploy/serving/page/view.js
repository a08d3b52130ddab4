// Which part of the plane is seen; both directions have one scale, so that distances look as they are.

const MARGIN = 1.08;

export class View {
  constructor(bounds, width, height) {
    this.bounds = bounds;
    this.resize(width, height);
    this.all();
  }

  resize(width, height) {
    this.width = Math.max(width, 1);
    this.height = Math.max(height, 1);
  }

  /** Show all points. */
  all() {
    const [left, right, bottom, top] = this.bounds;
    this.x = (left + right) / 2;
    this.y = (bottom + top) / 2;
    this.scale = MARGIN * (Math.max((right - left) / this.width, (top - bottom) / this.height) || 2 / this.width); // per pixel
  }

  zoom(factor) {
    this.scale /= factor;
  }

  /** Move by shares of what is seen. */
  move(right, up) {
    this.x += right * this.width * this.scale;
    this.y += up * this.height * this.scale;
  }

  /** Take the ranges that a drag or a wheel left. */
  follow(xRange, yRange) {
    this.x = (xRange[0] + xRange[1]) / 2;
    this.y = (yRange[0] + yRange[1]) / 2;
    this.scale = (xRange[1] - xRange[0]) / this.width;
  }

  /** Whether a place is in sight. */
  holds(x, y) {
    const [left, top] = this.pixel(x, y);
    return left > 20 && top > 20 && left < this.width - 20 && top < this.height - 20;
  }

  centre(x, y) {
    [this.x, this.y] = [x, y];
  }

  /** [pixels from the left, pixels from the top] of a place. */
  pixel(x, y) {
    return [(x - this.x) / this.scale + this.width / 2, (this.y - y) / this.scale + this.height / 2];
  }

  /** What is seen: pixels, and the ranges of both directions. */
  seen() {
    const halfWidth = (this.width * this.scale) / 2, halfHeight = (this.height * this.scale) / 2;
    return { width: this.width, height: this.height, x: [this.x - halfWidth, this.x + halfWidth], y: [this.y - halfHeight, this.y + halfHeight] };
  }
}
