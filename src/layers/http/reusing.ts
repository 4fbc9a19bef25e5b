/**
 * Bytes that are sent and forgotten, through memory that is used again and again.
 *
 * A long answer makes as much garbage as it has bytes, outside of the heap, where the collector hardly sees it: the
 * memory of a process grows by tens of megabytes before any is given back. Here each piece is copied into one of a few
 * buffers, and its own memory is given back at once. Only for whoever writes each piece to a stream and waits for
 * `drain` when it is told to, as the HTTP server does: what may wait there is less than the buffers between two uses.
 */
import * as Stream from "effect/Stream"

const slotBytes = 192 * 1024
const slots = 8

/** Many small pieces may wait at once, before anybody is told to wait for `drain`. */
const leastBytes = 32 * 1024

export const reusing = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Uint8Array, E, R> =>
  Stream.suspend(() => {
    const memory = new Uint8Array(slots * slotBytes)
    let next = 0
    return Stream.map(bytes, (piece) => {
      const { buffer, byteLength } = piece
      // What is larger than a buffer is rare; and what is a part of something else is not ours to give back.
      if (byteLength < leastBytes || byteLength > slotBytes || byteLength !== buffer.byteLength) return piece
      const at = next * slotBytes
      next = (next + 1) % slots
      memory.set(piece, at)
      if (buffer instanceof ArrayBuffer) buffer.transfer(0)
      return memory.subarray(at, at + byteLength)
    })
  })
