// Runs preview.wasm in a thread of its own: a small tile first, then a larger one if the time suffices.
// A response of its own policy (gateway/views/files.py) lets this script compile WebAssembly and nothing else.

const SIDES = [64, 128]; // pixels: multiples of the network's window, at most MAX_SIDE in gateway/browser/compact_x4.c

/**
 * The message has the module and the weights (ArrayBuffers), RGB pixels with their sides, and how many ms may pass.
 * Answers {tile, pixels} for each tile, `pixels` as RGBA at four times the sides, and null at the end.
 */
onmessage = async ({ data: { code, weights, image, budgetMs } }) => {
  try {
    const began = performance.now();
    const { instance: { exports: network } } = await WebAssembly.instantiate(code, {});
    if (weights.byteLength !== 2 * network.weights_count()) return;
    const memory = (at, length) => new Uint8Array(network.memory.buffer, at, length);
    memory(network.weights_at(), weights.byteLength).set(new Uint8Array(weights));
    network.prepare();
    let last = null;
    for (const side of SIDES) {
      const tile = cut(image, side);
      const startedAt = performance.now();
      if (last) {
        const growth = (tile.width * tile.height) / (last.width * last.height);
        if (growth === 1 || startedAt + growth * last.ms > began + budgetMs) break;
      }
      memory(network.input_at(), tile.rgb.length).set(tile.rgb);
      network.upscale(tile.height, tile.width);
      last = { width: tile.width, height: tile.height, ms: performance.now() - startedAt };
      const { x, y, width, height } = tile;
      const pixels = new Uint8ClampedArray(memory(network.output_at(), 64 * width * height));
      postMessage({ tile: { x, y, width, height }, pixels }, [pixels.buffer]);
    }
  } catch {
    // too old for SIMD, or out of memory: the server's result arrives anyway
  } finally {
    postMessage(null);
  }
};

/** Return the middle of the pixels, at most `side` wide and high, continued by reflection to multiples of 8. */
function cut({ rgb, width, height }, side) {
  const [w, h] = [Math.min(width, side), Math.min(height, side)];
  const [x, y] = [(width - w) >> 1, (height - h) >> 1];
  const tile = { x, y, width: Math.ceil(w / 8) * 8, height: Math.ceil(h / 8) * 8 };
  const inside = (at, length) => (at < length ? at : Math.max(0, 2 * length - 2 - at));
  tile.rgb = new Uint8Array(3 * tile.width * tile.height);
  for (let row = 0, to = 0; row < tile.height; row += 1) {
    for (let column = 0; column < tile.width; column += 1, to += 3) {
      const from = 3 * ((y + inside(row, h)) * width + x + inside(column, w));
      tile.rgb.set(rgb.subarray(from, from + 3), to);
    }
  }
  return tile;
}
