/**
 * Bytes that come in pieces, as lines: for files that are longer than a memory.
 *
 * A line longer than the bound is never held: its bytes are passed on as they come, and it counts as one line.
 */

export interface LineSink {
  /** A line without its end, and the bytes it is made of, with it. The last line of all may have no end. */
  readonly line: (text: Uint8Array, bytes: Uint8Array) => void
  /** A part of a line that is too long. `isLast`: the line ends with it. */
  readonly tooLong: (bytes: Uint8Array, isLast: boolean) => void
}

export interface LineSplitter {
  readonly push: (bytes: Uint8Array) => void
  /** No more comes: what is left is the last line, unless nothing is. */
  readonly end: () => void
}

const newline = 0x0a

const joined = (parts: ReadonlyArray<Uint8Array>, length: number): Uint8Array => {
  const whole = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

export const makeLineSplitter = (maxBytes: number, sink: LineSink): LineSplitter => {
  let parts: Array<Uint8Array> = []
  let held = 0
  let isTooLong = false

  /** The next part of a line; `end` is how many of its bytes are the line's end. */
  const take = (part: Uint8Array, end: 0 | 1, isLast: boolean): void => {
    if (!isTooLong && held + part.length - end > maxBytes) {
      isTooLong = true
      for (const before of parts) sink.tooLong(before, false)
      parts = []
      held = 0
    }
    if (isTooLong) {
      sink.tooLong(part, isLast)
      if (isLast) isTooLong = false
      return
    }
    if (!isLast) {
      // The caller may use its bytes again.
      parts.push(part.slice())
      held += part.length
      return
    }
    const bytes = parts.length === 0 ? part : joined([...parts, part], held + part.length)
    parts = []
    held = 0
    sink.line(end === 0 ? bytes : bytes.subarray(0, bytes.length - end), bytes)
  }

  return {
    push: (bytes) => {
      let from = 0
      while (from < bytes.length) {
        const at = bytes.indexOf(newline, from)
        if (at < 0) return take(bytes.subarray(from), 0, false)
        take(bytes.subarray(from, at + 1), 1, true)
        from = at + 1
      }
    },
    end: () => {
      if (held > 0 || isTooLong) take(new Uint8Array(0), 0, true)
    }
  }
}
